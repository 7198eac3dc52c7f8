"""Write DIFFERENCES.md: the same calls of sentence-transformers and of gte_np, side by side.

    python -m scripts.compare_calls

Needs the environment of `make parity`, which has sentence-transformers, and the weights of all-MiniLM-L6-v2. Ends
with 1 if a call has other values here and no remark says why. tests/test_differences.py checks the half of gte_np.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gte_np import EmbeddingModel, util
from scripts.fetch_minilm import FOLDER

PAGE = Path(__file__).resolve().parent.parent / "DIFFERENCES.md"
LIMIT = 1e-5
TEXTS = [
    "How many people live in London?",
    "Around 9 million people live in London",
    "A happy dog runs over the beach",
    "A dog is happy at the beach",
]

_BITS = "computed in bfloat16: rounded at other places"
_LEVELS = "a value close to the edge of a step may fall on its other side"

# The calls of each chapter, and what there is to say of those whose result is another one.
CALLS: dict[str, dict[str, str]] = {
    "Loading": {
        "Model(folder)": "",
        "Model(model_name_or_path=folder)": "",
        "Model.load(folder)": "",
        'Model(folder, device="cpu")': "",
        "Model(folder, device=None)": "",
        'Model(folder, device="cuda")': "",
        'Model(folder, cache_folder="models")': "",
        "Model(folder, local_files_only=True)": "",
        "Model(folder, trust_remote_code=False)": "",
        "Model(folder, trust_remote_code=True)": "",
        'Model(folder, similarity_fn_name="dot").similarity_fn_name': "",
        'Model(folder, prompts={"query": "find: "}, default_prompt_name="query")': "",
        "Model(folder, truncate_dim=64)": "",
        'Model(folder, backend="torch")': "the kernels of gte_np take the place of torch",
        'Model(folder, model_kwargs={"torch_dtype": "float32"})': "",
        'Model(folder, model_kwargs={"torch_dtype": "bfloat16"})': _BITS,
        'Model(folder, model_kwargs={"torch_dtype": "float16"})': "",
        'Model(folder, model_kwargs={"attn_implementation": "eager"})': "",
        'Model(folder, tokenizer_kwargs={"use_fast": True})': "",
        'Model(folder, tokenizer_kwargs={"model_max_length": 8})': "",
        "Model(folder, config_kwargs={})": "",
        "(model.save(saved), Model(saved))[1]": "",
        "model.save_pretrained(saved, safe_serialization=True)": "",
        "model.save_pretrained(saved, safe_serialization=False)": "",
        "model.save_pretrained(saved, create_model_card=True)": "",
    },
    "Encoding": {
        "model.encode(texts)": "",
        "model.encode(texts[0])": "",
        "model.encode(tuple(texts))": "",
        "model.encode(np.array(texts))": "",
        "model.encode(text for text in texts)": "any iterable of texts is taken",
        "model.encode([])": "no texts give an array of no rows here",
        "model.encode(inputs=texts)": "",
        "model.encode(sentences=texts)": "",
        'model.encode(texts, "query")': "",
        'model.encode(texts, None, "find: ", 2, False, "sentence_embedding", "float32")': "",
        'model.encode(texts, prompt_name="other")': "",
        "model.encode(texts, batch_size=1, show_progress_bar=False)": "",
        "model.encode(texts, convert_to_numpy=True, convert_to_tensor=False)": "",
        "model.encode(texts, convert_to_tensor=True)": "",
        "model.encode(texts, convert_to_numpy=False)": "",
        'model.encode(texts, device="cpu")': "",
        'model.encode(texts, device=["cpu"])': "",
        "model.encode(texts, normalize_embeddings=False)": "",
        "model.encode(texts, normalize_embeddings=True)": "",
        "model.encode(texts, truncate_dim=64)": "",
        "model.encode(texts, truncate_dim=64, normalize_embeddings=True)": "",
        "model.encode(texts, truncate_dim=1000)": "",
        'model.encode(texts, precision="int8")': _LEVELS,
        'model.encode(texts, precision="uint8")': _LEVELS,
        'model.encode(texts, precision="binary")': "",
        'model.encode(texts, precision="ubinary")': "",
        'model.encode(texts, output_value="token_embeddings")': "",
        'model.encode(texts[0], output_value="token_embeddings")': "",
        "model.encode(texts, output_value=None)": "without padding here, so attention_mask is all ones",
        "model.encode(texts, pool=pool, chunk_size=2)": "",
        "model.encode_multi_process(texts, pool)": "",
        'model.encode(texts, task="query")': "",
        "model.encode(texts, workers=2)": "",
        "model.encode(None)": "",
        "model.encode_query(texts)": "",
        "model.encode_document(texts)": "",
        "model.encode_query(inputs=texts, convert_to_numpy=True)": "",
    },
    "The model": {
        "model.get_embedding_dimension()": "",
        "model.get_sentence_embedding_dimension()": "",
        "model.max_seq_length": "",
        "model.get_max_seq_length()": "",
        "model.similarity_fn_name": "",
        "model.similarity(a, b)": "",
        "model.similarity_pairwise(a, b)": "",
        "model.prompts": "",
        "model.default_prompt_name": "",
        "model.truncate_dim": "",
        "model.device": "a str; instead of `model.device.type`, write `model.device`",
        "model.dtype": "",
        'model.to("cpu")': "",
        "model.cpu()": "",
        "model.eval()": "",
        "Model(folder).half()": "",
        "model.compile()": "",
        "model.state_dict()": "",
        "model[0]": "write `model.bert`, `model.tokenizer` or `model.modules`",
        "model.tokenize(texts)": "`tokens[0]` has the ids of a text; `model.tokenizer(texts)` is a dict",
    },
    "util": {
        "util.cos_sim(a, b)": "",
        "util.cos_sim(a[0], b)": "",
        "util.pytorch_cos_sim(a, b)": "",
        "util.dot_score(a, b)": "",
        "util.euclidean_sim(a, b)": "",
        "util.manhattan_sim(a, b)": "",
        "util.pairwise_cos_sim(a, b)": "",
        "util.pairwise_dot_score(a, b)": "",
        "util.pairwise_euclidean_sim(a, b)": "",
        "util.pairwise_manhattan_sim(a, b)": "",
        "util.semantic_search(a, b)": "",
        "util.semantic_search(a, b, 2, 3, 1, util.dot_score)": "",
        "util.paraphrase_mining(model, texts)": "",
        "util.paraphrase_mining_embeddings(a, top_k=2)": "",
        "util.community_detection(model.encode(texts), threshold=0.7, min_community_size=2)": "",
        "util.quantize_embeddings(a, 'ubinary')": "",
        "util.quantize_embeddings(a, 'int8')": _LEVELS,
        "util.truncate_embeddings(a, 2)": "",
        "util.normalize_embeddings(a)": "takes arrays, and tensors on the CPU",
    },
}
HEAD = """\
# Calls of sentence-transformers, and what they give here

Generated by `make differences`, which makes every call with both engines: sentence-transformers {version} and gte_np,
on the published weights of all-MiniLM-L6-v2. `Model` is `SentenceTransformer` or `EmbeddingModel`, and `util` is
`sentence_transformers.util` or `gte_np.util`. `folder` is the model's folder and `saved` another one. `texts` are
four sentences, `a` and `b` are arrays (6, 8) of float32, and `pool` is what `start_multi_process_pool` gives.

The last column says how the values compare: *equal*, or *within 1e-5*, the largest difference of two numbers. Where
gte_np raises an error, its message says what to write instead. A model is compared by its vectors of the texts.
"""


class Model(NamedTuple):
    """A model that a call gives, by the vectors that it has for the texts right then."""

    vectors: Any


class Row(NamedTuple):
    """A line of the page: a call, what each engine gives, and how the values compare."""

    call: str
    theirs: str
    ours: str
    comparison: str


def names_of(model_class: Any, functions: ModuleType, saved: Path) -> dict[str, Any]:
    """What the calls name, for one engine."""
    random = np.random.default_rng(0)
    model = model_class(str(FOLDER))
    return {
        "Model": model_class,
        "util": functions,
        "folder": str(FOLDER),
        "saved": str(saved),
        "texts": TEXTS,
        "np": np,
        "a": random.standard_normal((6, 8), dtype=np.float32),
        "b": random.standard_normal((6, 8), dtype=np.float32),
        "model": model,
        "pool": model.start_multi_process_pool(["cpu"]),
    }


def outcome_of(call: str, names: Mapping[str, Any]) -> Any:
    """What a call gives, or the error that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that sentence-transformers will drop
        try:
            value = eval(call, dict(names))
            return Model(value.encode(TEXTS)) if hasattr(value, "encode_query") else value
        except Exception as error:
            return error


def outcomes(model_class: Any, functions: ModuleType) -> dict[str, Any]:
    """What each call gives, for one engine."""
    with tempfile.TemporaryDirectory() as temporary:
        names = names_of(model_class, functions, Path(temporary) / "saved")
        results = {call: outcome_of(call, names) for chapter in CALLS.values() for call in chapter}
        model_class.stop_multi_process_pool(names["pool"])
    return results


def describe(value: Any) -> str:
    """What a value is, by its kind and shape, without the numbers that depend on the processor."""
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Model):
        return "a model"
    if hasattr(value, "shape"):
        kind = type(value).__name__.lower().removeprefix("nd")
        return f"{kind} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple) and value:
        return f"{type(value).__name__} of {len(value)}, the first: {describe(value[0])}"
    if isinstance(value, Mapping):
        return f"dict of {', '.join(value) if len(value) < 9 else len(value)}"
    if isinstance(value, str | int | list | None):
        return repr(value)
    return type(value).__name__


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two numbers of two values; infinite for values that cannot be compared."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return max(difference(ours[key], theirs[key]) for key in ours if key in theirs)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            return np.inf
        return max((difference(*pair) for pair in zip(ours, theirs, strict=True)), default=0.0)
    if isinstance(ours, Number | np.ndarray) and not isinstance(theirs, str):
        return _largest_difference(ours, theirs)
    return 0.0 if str(ours) == str(theirs) else np.inf


def _largest_difference(ours: Any, theirs: Any) -> float:
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(mine - other).max(initial=0)) if mine.shape == other.shape else np.inf


def comparison(ours: Any, theirs: Any, remark: str) -> str:
    """The last column of a call; empty for a difference that nothing tells of."""
    if isinstance(ours, Exception):
        return "; ".join(filter(None, ["both raise" if isinstance(theirs, Exception) else "raises", remark]))
    worst = np.inf if isinstance(theirs, Exception) else difference(ours, theirs)
    found = "equal" if worst == 0 else "within 1e-5" if worst <= LIMIT else ""
    if remark and LIMIT < worst < np.inf:
        found = f"up to {worst:.1g} apart"
    return "; ".join(filter(None, [found, remark]))


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def page(rows: Mapping[str, list[Row]], version: str) -> str:
    """The page, of the rows of each chapter."""
    parts = [HEAD.format(version=version)]
    for chapter, lines in rows.items():
        parts.append(f"## {chapter}\n\n| call | sentence-transformers | gte_np | values |\n|---|---|---|---|\n")
        parts[-1] += "".join(
            f"| `{row.call}` | {cell(row.theirs)} | {cell(row.ours)} | {row.comparison} |\n" for row in lines
        )
    return "\n".join(parts)


def read_page() -> dict[str, Row]:
    """The rows of the page that is there, by their calls."""
    found = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {row[0]: Row(*row) for row in found}


def main() -> int:
    """Write the page. Return 1 if there is a difference that no remark explains."""
    import sentence_transformers

    logging.disable(logging.WARNING)
    theirs = outcomes(sentence_transformers.SentenceTransformer, sentence_transformers.util)
    ours = outcomes(EmbeddingModel, util)
    rows = {
        chapter: [
            Row(call, _their_cell(theirs[call]), describe(ours[call]), comparison(ours[call], theirs[call], remark))
            for call, remark in calls.items()
        ]
        for chapter, calls in CALLS.items()
    }
    PAGE.write_text(page(rows, sentence_transformers.__version__), "utf-8")
    unexplained = [row for chapter in rows.values() for row in chapter if not row.comparison]
    for row in unexplained:
        print(f"{row.call}: {row.theirs}; here {row.ours}")
    return 1 if unexplained else 0


def _their_cell(value: Any) -> str:
    """What sentence-transformers gives; of an error, its class, since messages change with versions."""
    return type(value).__name__ if isinstance(value, Exception) else describe(value)


if __name__ == "__main__":
    sys.exit(main())
