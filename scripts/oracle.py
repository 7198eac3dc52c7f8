"""What transformers and sentence-transformers compute, in float32, for the golden arrays and for `make parity`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def go_offline() -> None:
    """Be quiet, and never look anything up: the folders that are compared are here. To be called before the rest."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    if "huggingface_hub" in sys.modules:  # it has read its environment
        sys.modules["huggingface_hub"].constants.HF_HUB_OFFLINE = True


def versions() -> dict[str, str]:
    """The versions of the oracle's packages."""
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")}


def load_bert(folder: Path) -> Any:
    """transformers' encoder; float32 must be said, or float16 weights stay float16."""
    import torch
    from transformers import BertModel

    model: Any = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def bert_output(model: Any, **inputs: NDArray[np.int64]) -> Any:
    """The output of transformers' BertModel for (B, T) arrays, with all hidden states and attentions."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        return model(**tensors, output_hidden_states=True, output_attentions=True)


def hidden_states(model: Any, ids: Sequence[int]) -> FloatArray:
    """The hidden states of one text after the embeddings and after each layer: (L + 1, T, D)."""
    output = bert_output(model, input_ids=np.array([ids], np.int64))
    return np.concatenate([layer.numpy() for layer in output.hidden_states])


def load_sentence_transformer(folder: Path) -> Any:
    """sentence-transformers' model, in float32."""
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of transformers' tokenizer, not cut."""
    ids: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    return ids
