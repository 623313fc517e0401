from .backend import share_the_gpu

share_the_gpu()  # here, so that it comes before any import of Keras, in commands and notebooks
