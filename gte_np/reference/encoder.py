"""The whole encoder: embeddings, then L layers (BERT, section 3)."""

from __future__ import annotations

from gte_np.architectures.config import BertConfig
from gte_np.architectures.weights import BertWeights
from gte_np.encoder_interface import EncoderInput, EncoderOutput, FloatArray
from gte_np.formats import WeightFormat
from gte_np.reference.attention import attention_probabilities, self_attention
from gte_np.reference.embeddings import embed
from gte_np.reference.feed_forward import feed_forward
from gte_np.reference.layer_norm import layer_norm
from gte_np.reference.linear import Weights, prepare_weights
from gte_np.token_batch import TokenBatch


class ReferenceEncoder:
    """The encoder in NumPy: the `Encoder` that `backend="numpy"` gives. Its linear layers are in a weight format."""

    def __init__(self, config: BertConfig, weights: BertWeights, weight_format: WeightFormat) -> None:
        self.config = config
        self.embeddings = prepare_weights(weights.embeddings, weight_format)
        self.layers = [prepare_weights(layer, weight_format) for layer in weights.layers]

    def __call__(self, inputs: EncoderInput, *, keep_layers: bool = False) -> EncoderOutput:
        """Run all layers on the batch; the contract is `gte_np.encoder_interface.Encoder`."""
        batch = inputs.batch
        x = embed(inputs, self.embeddings, self.config.layer_norm_eps)  # (N,) -> (N, D)
        hidden_states = [x]
        for layer_weights in self.layers:
            x, _ = encoder_layer(x, batch, layer_weights, self.config)  # (N, D) -> (N, D)
            if keep_layers:
                hidden_states.append(x)
        if not keep_layers:
            return EncoderOutput(x if inputs.rows is None else x[inputs.rows])  # (N, D) -> (R, D)
        return EncoderOutput(x, hidden_states)

    def attention(self, layer: int, hidden: FloatArray, batch: TokenBatch) -> list[FloatArray]:
        """The attention probabilities of a layer; the contract is `gte_np.encoder_interface.Encoder`."""
        return attention_probabilities(hidden, batch, self.layers[layer], self.config.num_attention_heads)


def encoder_layer(
    x: FloatArray, batch: TokenBatch, weights: Weights, config: BertConfig
) -> tuple[FloatArray, list[FloatArray]]:
    """Self-attention, then feed-forward; each is added to its input, and the sum normalised: (N, D) -> (N, D).

        x --+---------------------> + --> layer_norm --+-------------------> + --> layer_norm --> x of the next layer
            |                       ^                  |                     ^
            +--> self_attention ----+                  +--> feed_forward ----+

    Why residual connections, the straight lines above: attention and feed-forward need only learn a correction to x,
    not all of x anew, and in training gradients reach the first layers without having to pass through either.

    Also returns the attention probabilities, one (H, T, T) for each text.

    `gte_np.BertModel.weights` has the weights of a published model: `layer(0)` are those of its first layer. A layer
    whose linear layers are all zeros adds nothing to x, and has it normalised:

    >>> import numpy as np
    >>> from gte_np.architectures.tensors import LAYER
    >>> sizes = {"D": 2, "F": 8}
    >>> weights = {name: np.zeros([sizes[axis] for axis in axes], np.float32) for name, axes in LAYER.items()}
    >>> weights |= {name: np.ones(2, np.float32) for name in LAYER if name.endswith("LayerNorm.weight")}
    >>> config = BertConfig(2, 2, 1, 1, 8, 2, 1, 1e-12)
    >>> x = np.array([[3, 1], [10, 50]], np.float32)
    >>> encoder_layer(x, TokenBatch.from_ids([[0, 1]]), weights, config)[0].tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    attended, probabilities = self_attention(x, batch, weights, config.num_attention_heads)  # (N, D) -> (N, D)
    x = layer_norm(x + attended, weights, "attention.output.LayerNorm", config.layer_norm_eps)  # (N, D)
    processed = feed_forward(x, weights)  # (N, D) -> (N, D)
    x = layer_norm(x + processed, weights, "output.LayerNorm", config.layer_norm_eps)  # (N, D)
    return x, probabilities
