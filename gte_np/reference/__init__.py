"""The BERT encoder to read, in pure NumPy: the oracle that the kernels are tested against.

Read in this order: `embeddings`, `attention`, `feed_forward`, `layer_norm`, `linear`, `encoder`; then
`low_precision`. Axis letters: B texts, N tokens of all texts laid end to end, T tokens of one text, D hidden size,
H heads, K head size (D / H), F feed-forward size, L layers, V vocabulary.

The architecture is that of Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding" (2018), on the encoder of Vaswani et al., "Attention Is All You Need" (2017); the order of operations
and the names of the weights are those of transformers' BertModel.
"""

from gte_np.reference.encoder import ReferenceEncoder

__all__ = ["ReferenceEncoder"]
