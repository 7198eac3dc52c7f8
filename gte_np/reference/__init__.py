"""The BERT encoder to read, in pure NumPy: the oracle that the kernels are tested against.

README.md beside this file is a tutorial that builds the encoder anew, on published weights. Read the chapters in this
order:

1. `gte_np.tokenization.tokenizer`: a text becomes token ids.
2. `gte_np.token_batch`: the ids of many texts become one `TokenBatch`, drawn below.
3. `embeddings`: a token id becomes a vector.
4. `layer_norm` and `linear`: what all layers are made of.
5. `attention`: tokens read from each other.
6. `feed_forward`: each token is processed by itself. (`erf` is a detail of its GELU.)
7. `encoder`: the layers, one after another.
8. `gte_np.pooling`: the vectors of a text's tokens become one vector.
9. `gte_np.formats`, if you want to know how it works with fewer bits. Until then, every weight is a float32 array.

Axis letters, in every shape comment: B texts, N tokens of all texts laid end to end, T tokens of one text (or of one
padded row), D hidden size, H heads, K head size (D / H), F feed-forward size, L layers, V vocabulary. They name axes
and nothing else: where the papers write Q, K, V and W for matrices, formulas here say query, key, value and weight.

Texts are packed: their tokens lie end to end, with no padding between them, and offsets tell where each text begins.
Every array of the encoder has a row for each token, in this order. B = 2 texts with N = 7 tokens are

    texts             "hello world"                  "hi"

                      [CLS]  hello  world  [SEP]  |  [CLS]  hi    [SEP]
    input_ids         101    7592   2088   102    |  101    7632  102       (N,)
    position_ids      0      1      2      3      |  0      1     2         (N,)
    token_type_ids    0      0      0      0      |  0      0     0         (N,)
    offsets           0                              4                   7  (B + 1,)

so text 1 has the rows from 4 up to, but not including, 7. The tokenizer adds two tokens to each text: [CLS] before
it, whose use `gte_np.pooling` explains, and [SEP] behind it, which separates two texts where a model reads pairs.

The architecture is that of Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding" (2018), on the encoder of Vaswani et al., "Attention Is All You Need" (2017); the order of operations
and the names of the weights are those of transformers' BertModel.
"""

from gte_np.reference.encoder import ReferenceEncoder

__all__ = ["ReferenceEncoder"]
