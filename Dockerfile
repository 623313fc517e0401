# The same environment as `make env`, from the same lock: docker build -t blockwise .
#   docker run --rm -v "$PWD/build:/app/build" blockwise make paper RESULTS=build/rows
#   docker run --rm -p 127.0.0.1:8888:8888 blockwise .venv/bin/jupyter lab --ip=0.0.0.0 --allow-root
FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt pyproject.toml Makefile ./
COPY lib lib
RUN make env
COPY . .
RUN touch .venv/.ready
CMD ["make", "paper"]
