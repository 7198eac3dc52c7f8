"""BERT (Devlin et al., 2018), as transformers' BertModel computes it."""

from __future__ import annotations

from gte_np.architectures.architecture import Architecture

BERT = Architecture(
    model_type="bert",
    # transformers' BertConfig names the rest of the choices, each a different computation.
    implemented={
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
        "quantization_config": (None,),
    },
    position_ids=lambda batch: batch.columns,  # padding counts, as in transformers
    prefix="bert.",
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},  # TensorFlow's names
    # 0, 1, 2, ..., which old versions of transformers stored, and the heads of masked-language-model pre-training
    ignored=("embeddings.position_ids", "cls."),
)
