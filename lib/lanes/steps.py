"""What one epoch of a fused model executes, on TensorFlow and on JAX.

Both classes offer the same methods, so nothing above them knows the backend:

- ``train_epoch(order, rates)``: one pass of Adam over the training images;
- ``evaluate()``: class probabilities and losses of every lane for the evaluation images;
- ``state()``: where training stands, as copies, one array after another: the weights, as of
  `FusedModel.initial_weights`, their first and their second moments, the statistics, the number of
  steps done;
- ``restore(arrays)``: stand there again;
- ``restart(seeds)``: the same lanes from the start with other seeds, without tracing again.

Adam is written out because Keras' own makes about eleven passes over memory a step and knows one
learning rate, not one a lane; compiled by XLA it is a loop for each of weights and moments. The
update is Keras' (Kingma & Ba, 2015, the formula before section 2.1, "epsilon hat").

The first kernel of the classifier holds nearly all of a lane's weights (3.6 million for
MobileNetV3Small at 224 px) and a batch is small, so its gradient, a product of two narrow
matrices, is made inside these loops, weight by weight, and never held.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from ..provenance import device
from .model import FusedModel

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # the defaults of keras.optimizers.Adam

WIDE = 1  # place of the classifiers' first kernel among `FusedModel.initial_weights`
# Multiply-adds of an evaluation from which TensorFlow's graph optimisers are worth their seconds
# (16 lanes of MobileNetV3Small at 224 px: 8 s once, and 19 of 49 s an epoch less, on one core).
OPTIMISED = 3e10
NARROW = 16  # images of a batch at most whose gradient of that kernel is made inside Adam's pass


def make_steps(model: FusedModel, train, evaluation, batch_size: int, eval_batch_size: int):
    """The steps of `model` on the current Keras backend.

    Args:
        train: ``(features, targets)``: float32 arrays ``(images, ...)`` by tensor number of what
            crosses the model's cut, and one-hot float32 ``(images, classes)``.
        evaluation: the same for the evaluation images.
        batch_size: images of a training step; the last step of an epoch takes what is left.
        eval_batch_size: images of an evaluation step; it changes speed, not results.

    Raises ValueError on a backend that the engine does not have.
    """
    kinds = {"tensorflow": TensorFlowSteps, "jax": JaxSteps}
    backend = keras.backend.backend()
    if backend not in kinds:
        raise ValueError(f"Keras' backend is {backend!r}: the fused engine has {sorted(kinds)}")
    return kinds[backend](model, train, evaluation, batch_size, eval_batch_size)


def use_deterministic_operations() -> None:
    """Have the backend use operations that give the same bits every time, in this process."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


class _Steps:
    """What both backends share."""

    optimised = False  # whether TensorFlow's graph optimisers rewrite the graph that evaluates

    def __init__(self, model: FusedModel, train, evaluation, batch_size, eval_batch_size):
        self.model, self.batch_size, self.eval_batch_size = model, batch_size, eval_batch_size
        self.images = _on_device(*train)
        self.eval_images, self.eval_count = evaluation, len(evaluation[1])

    def train_epoch(self, order: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """One pass over the training images.

        Args:
            order: int ``(images,)``, the order in which the images come.
            rates: float ``(lanes,)``, each lane's learning rate.

        Returns:
            Training accuracy of each lane, float64 ``(lanes,)``, as Keras reports it: over the
            epoch, dropout on, while the weights change.
        """
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size), order[full:].reshape(1, -1)
        hits = [self._train(b.astype("int32"), rates.astype("float32")) for b in batches if b.size]
        return np.sum(hits, axis=0, dtype="float64") / len(order)

    def evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities and Keras' losses of the evaluation images.

        Returns:
            float32 ``(lanes, images, classes)`` and ``(lanes, images)``.
        """
        parts = [self._evaluate(rows) for rows in self._eval_rows()]
        both = np.concatenate(parts, axis=1)[:, : self.eval_count]
        return both[..., :-1], both[..., -1]

    def _eval_rows(self) -> Iterator[np.ndarray]:
        """Batches of one size, the last filled up with its first image: one graph serves all."""
        for start in range(0, self.eval_count, self.eval_batch_size):
            rows = np.arange(start, start + self.eval_batch_size, dtype="int32")
            rows[rows >= self.eval_count] = start
            yield rows

    def _scores(self, weights, statistics, batch, truth):
        """Probabilities and the loss side by side, ``(lanes, batch, classes + 1)``: one array."""
        logits, _, _ = self.model(weights, statistics, batch, None, optimised=self.optimised)
        return ops.concatenate([ops.softmax(logits), crossentropy(truth, logits)[..., None]], -1)

    def _loss(self, weights, statistics, batch, truth, step, added):
        """Sum of the lanes' losses on one batch, new statistics, each lane's hits, first inputs.

        added: zeros, to what the classifiers' first kernel makes: their gradient and its inputs
        are the two halves of the kernel's own gradient.
        """
        logits, statistics, inputs = self.model(weights, statistics, batch, step, added)
        losses = crossentropy(truth, logits)
        found = ops.argmax(logits, axis=-1) == ops.argmax(truth, axis=-1)
        hits = ops.sum(ops.cast(found, "float32"), axis=-1)
        return ops.sum(ops.mean(losses, axis=-1)), statistics, hits, inputs

    def _zeros(self, batch: int, units: int):
        """What `_loss` adds: ``(lanes, batch, units)``."""
        return ops.zeros((len(self.model.lanes), batch, units))


class TensorFlowSteps(_Steps):
    """The full batches of an epoch run as one graph: one call from Python."""

    def __init__(self, *args):
        import tensorflow as tf

        super().__init__(*args)
        self.tf = tf
        self.variables = [tf.Variable(w) for w in self.model.initial_weights()]
        self.moments = [[tf.Variable(tf.zeros_like(w)) for w in self.variables] for _ in range(2)]
        self.statistics = tf.Variable(self.model.initial_statistics())
        self.done = tf.Variable(0)
        self._train_graph = tf.function(self._epoch, autograph=False)
        self._adam = tf.function(self._update, autograph=False, jit_compile=True)
        self._evaluation_graph = tf.function(self._current_scores, autograph=False)
        self._traced: dict = {}
        self.optimised = device() == "CPU" and _evaluation_macs(self) >= OPTIMISED

    def state(self) -> Iterator[np.ndarray]:
        return (v.numpy() for v in self._everything())

    def restore(self, arrays: Iterable[np.ndarray]) -> None:
        for variable, array in zip(self._everything(), arrays, strict=True):
            variable.assign(array)

    def _everything(self) -> list[Any]:
        return [*self.variables, *self.moments[0], *self.moments[1], self.statistics, self.done]

    def restart(self, seeds: Sequence[int]) -> bool:
        """Whether the lanes stand at their start with these seeds, one a lane.

        False: lanes that share a seed would no longer; another model has to be made.
        """
        if not self.model.restart(seeds):
            return False
        for variable, value in zip(self.variables, self.model.initial_weights(), strict=True):
            variable.assign(value)
        for moment in (m for moments in self.moments for m in moments):
            moment.assign(self.tf.zeros_like(moment))
        self.statistics.assign(self.model.initial_statistics())
        self.done.assign(0)
        return True

    def _train(self, batches: np.ndarray, rates: np.ndarray) -> np.ndarray:
        return self._call(self._train_graph, batches, rates)

    def _evaluate(self, rows: np.ndarray) -> np.ndarray:
        features, targets = self.eval_images  # a batch at a time: they may fill the memory
        batch = {t: f[rows] for t, f in features.items()}
        return self._call(self._evaluation_graph, batch, targets[rows], optimised=self.optimised)

    def _call(self, function: Any, *arrays: Any, optimised: bool = False) -> np.ndarray:
        """Call a graph, traced once for these shapes."""
        tensors = self.tf.nest.map_structure(self.tf.constant, arrays)
        key = function, *(tuple(x.shape) for x in self.tf.nest.flatten(tensors))
        if key not in self._traced:
            # Asked for by name: called directly, each new model would raise a false alarm of
            # "frequent retracing".
            self._traced[key] = function.get_concrete_function(*tensors)
        with nullcontext() if optimised else _graph_optimisers_off():
            return self._traced[key](*tensors).numpy()

    def _epoch(self, batches, rates):
        tf, n, size = self.tf, *batches.shape
        spread = self.model.spread(rates)

        def body(i, hits):
            return i + 1, hits + self._step(tf.ensure_shape(batches[i], [size]), spread)

        start = (0, tf.zeros([len(self.model.lanes)]))
        return tf.while_loop(lambda i, _: i < n, body, start, parallel_iterations=1)[1]

    def _step(self, rows, rates):
        tf = self.tf
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            # The backbone's own weights are not watched, so no gradient of theirs is even traced.
            weights = [tf.convert_to_tensor(w) for w in self.variables]
            added = self._zeros(rows.shape[0], weights[WIDE].shape[-1])
            watched = [*_without_wide(weights), added]
            tape.watch(watched)
            loss, statistics, hits, inputs = self._loss(
                weights,
                self.statistics.value(),
                *_rows(self.images, rows),
                self.done,
                added,
            )
        *gradients, back = tape.gradient(loss, watched, unconnected_gradients="zero")
        self.statistics.assign(statistics)
        narrow = rows.shape[0] <= NARROW  # XLA's own product of larger matrices is slower
        wide = (inputs, back) if narrow else (kernel_gradient(inputs, back),)
        self._adam(gradients, wide, rates, tf.cast(self.done.assign_add(1), "float32"))
        return hits

    def _update(self, gradients, wide, rates, step):
        """wide: the gradient of the kernel at WIDE, or what `narrow_gradient` makes it of."""
        kernel = narrow_gradient(*wide) if len(wide) == 2 else wide[0]
        gradients = _with_wide(gradients, kernel)
        for w, m, v, g, r in zip(self.variables, *self.moments, gradients, rates, strict=True):
            for variable, value in zip((w, m, v), adam(w, m, v, g, r, step), strict=True):
                variable.assign(value)

    def _current_scores(self, batch, truth):
        weights = [w.value() for w in self.variables]
        return self._scores(weights, self.statistics.value(), batch, truth)


def _evaluation_macs(steps: _Steps) -> int:
    """Multiply-adds of one evaluation, all lanes from their first tuned layer on."""
    graph, spans = steps.model.graph, steps.model.spans
    return steps.eval_count * sum(graph.macs(first) for first, _ in spans)


@contextmanager
def _graph_optimisers_off():
    """Run graphs as they were traced: but for an evaluation of much work, see `OPTIMISED`.

    TensorFlow's graph rewriting takes seconds on a graph of many lanes, and its steps are then
    no faster (thin MobileNetV2, 104 lanes: 28 s against 14 s to the first epoch and prediction).
    """
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        restored = {"disable_meta_optimizer": False} | before
        tf.config.optimizer.set_experimental_options(restored)


class JaxSteps(_Steps):
    """The full batches of an epoch run as one scan.

    The images are arguments of what is compiled, never constants in it.
    """

    def __init__(self, *args):
        import jax

        super().__init__(*args)
        self.jax = jax
        self.eval_images = _on_device(*self.eval_images)
        weights = [jax.numpy.asarray(w) for w in self.model.initial_weights()]
        moments = [[jax.numpy.zeros_like(w) for w in weights] for _ in range(2)]
        statistics = jax.numpy.asarray(self.model.initial_statistics())
        self.carry = (weights, *moments, statistics, jax.numpy.zeros((), "int32"))
        self._compiled = self._compile()

    def state(self) -> Iterator[np.ndarray]:
        return map(np.array, self.jax.tree.leaves(self.carry))  # copies: training gives these away

    def restore(self, arrays: Iterable[np.ndarray]) -> None:
        shape = self.jax.tree.structure(self.carry)
        self.carry = shape.unflatten(map(self.jax.numpy.asarray, arrays))

    def restart(self, seeds: Sequence[int]) -> bool:
        """False: seeds are constants of what JAX has compiled."""
        return False

    def _compile(self) -> dict[tuple[int, ...], Callable]:
        """What trains on batches and what evaluates one, by the shape of the rows that they take.

        Traced one after the other and compiled at once: compiling takes longer, and no lock.
        """
        size, images = self.batch_size, len(self.images[1])
        shapes = [(images // size, size), (1, images % size)]
        rates = np.zeros(len(self.model.lanes), "float32")
        train = self.jax.jit(self._epoch, donate_argnums=0)
        lowered = {
            shape: train.lower(self.carry, np.zeros(shape, "int32"), rates, self.images)
            for shape in shapes
            if np.prod(shape)
        }
        rows = next(self._eval_rows())
        evaluate = self.jax.jit(self._eval_scores)
        lowered[rows.shape] = evaluate.lower(self.carry[0], self.carry[3], rows, self.eval_images)
        with ThreadPoolExecutor(len(lowered)) as threads:
            compiled = threads.map(lambda graph: graph.compile(), lowered.values())
            return dict(zip(lowered, compiled, strict=True))

    def _train(self, batches: np.ndarray, rates: np.ndarray) -> Any:
        graph = self._compiled[batches.shape]
        self.carry, hits = graph(self.carry, batches, rates, self.images)
        return hits

    def _evaluate(self, rows: np.ndarray) -> Any:
        return self._compiled[rows.shape](self.carry[0], self.carry[3], rows, self.eval_images)

    def _eval_scores(self, weights, statistics, rows, images):
        return self._scores(weights, statistics, *_rows(images, rows))

    def _epoch(self, carry, batches, rates, images):
        spread = self.model.spread(rates)

        def step(carry, rows):
            return self._step(carry, *_rows(images, rows), spread)

        carry, hits = self.jax.lax.scan(step, carry, batches)
        return carry, hits.sum(axis=0)

    def _step(self, carry, batch, truth, rates):
        weights, m, v, statistics, done = carry

        def loss(learned, added):
            whole = _with_wide(learned, weights[WIDE])
            total, *aside = self._loss(whole, statistics, batch, truth, done, added)
            return total, aside

        learned = _without_wide(weights)
        added = self._zeros(len(truth), weights[WIDE].shape[-1])
        differentiate = self.jax.grad(loss, argnums=(0, 1), has_aux=True)
        (gradients, back), (statistics, hits, inputs) = differentiate(learned, added)
        kernel = (kernel_gradient if len(truth) > NARROW else narrow_gradient)(inputs, back)
        gradients = _with_wide(gradients, kernel)
        arrays = zip(weights, m, v, gradients, rates, strict=True)
        moved = [adam(*a, (done + 1).astype("float32")) for a in arrays]
        weights, m, v = (list(column) for column in zip(*moved, strict=True))
        return (weights, m, v, statistics, done + 1), hits


def _on_device(features: Mapping[int, np.ndarray], targets: np.ndarray) -> tuple[dict, Any]:
    tensors = {t: ops.convert_to_tensor(f) for t, f in features.items()}
    return tensors, ops.convert_to_tensor(targets)


def _rows(images: tuple[Mapping[int, Any], Any], rows: Any) -> tuple[dict, Any]:
    """Features by number, and targets, of some images."""
    features, targets = images
    batch = {t: ops.take(f, rows, axis=0) for t, f in features.items()}
    return batch, ops.take(targets, rows, axis=0)


def crossentropy(truth, logits):
    """Keras' categorical cross-entropy of a network that ends in a softmax.

    On TensorFlow Keras finds the logits below the softmax. Elsewhere it clips probabilities to
    1e-7, so that an image whose class is less likely than that adds nothing to the gradient.

    Args:
        truth: one-hot ``(batch, classes)``.
        logits: ``(lanes, batch, classes)``.

    Returns:
        Losses ``(lanes, batch)``.
    """
    truth = ops.broadcast_to(truth, logits.shape)
    if keras.backend.backend() == "tensorflow":
        return ops.categorical_crossentropy(truth, logits, from_logits=True)
    return ops.categorical_crossentropy(truth, ops.softmax(logits))


def _without_wide(arrays: Sequence[Any]) -> list[Any]:
    """All but the one at `WIDE`."""
    return [*arrays[:WIDE], *arrays[WIDE + 1 :]]


def _with_wide(others: Sequence[Any], wide: Any) -> list[Any]:
    """Undo `_without_wide`."""
    return [*others[:WIDE], wide, *others[WIDE:]]


def kernel_gradient(inputs, back):
    """The gradient of a kernel ``(lanes, inputs, units)`` from both of its sides.

    Args:
        inputs: what the kernel reads, ``(lanes, batch, inputs)``.
        back: the gradient of what it makes, ``(lanes, batch, units)``.
    """
    return ops.matmul(ops.swapaxes(inputs, -1, -2), back)


def narrow_gradient(inputs, back):
    """`kernel_gradient` for a few images, as sums that XLA makes part of the loop around it."""
    products = [inputs[:, b, :, None] * back[:, b, None, :] for b in range(inputs.shape[1])]
    return sum(products[1:], products[0])


def adam(weight, m, v, gradient, rate, step):
    """One Adam update of one array.

    Args:
        m, v: first and second moment, shaped as `weight`.
        rate: learning rate, broadcast against `weight`.
        step: float, 1 for the first.

    Returns:
        The new weight, m and v.
    """
    m = m + (gradient - m) * (1.0 - BETA_1)
    v = v + (ops.square(gradient) - v) * (1.0 - BETA_2)
    rate = rate * ops.sqrt(1.0 - BETA_2**step) / (1.0 - BETA_1**step)
    return weight - rate * m / (ops.sqrt(v) + EPSILON), m, v
