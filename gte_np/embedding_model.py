"""EmbeddingModel: texts in, vectors out, in the manner of sentence-transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gte_np.arguments import check_choice, check_flag, check_integer, check_text
from gte_np.bert_model import BertModel, check_options
from gte_np.checkpoint.source import LoadedFiles, Source
from gte_np.compatibility import ENCODE, SAVE, ModuleMethods, Pool, load_options, translated
from gte_np.embedding_quantization import PRECISIONS, quantize_embeddings
from gte_np.encoder_interface import FloatArray
from gte_np.errors import CheckpointError, InputError
from gte_np.head import Finish, Head
from gte_np.kernels.runtime.lines import JobLine
from gte_np.kernels.runtime.saved_panels import PANELS_FILES
from gte_np.known_models import KNOWN_MODELS, KnownModel
from gte_np.loaded import Loaded
from gte_np.merging import TEXTS_AT_ONCE, Merging, Wish, do_apart
from gte_np.modules import Dense, Module, Normalize
from gte_np.pipeline import Processed, Steps, different_texts, process, process_windows, windows_of
from gte_np.progress import progress_bar
from gte_np.sentence_config import (
    SentenceConfig,
    check_pooling_modes,
    read_sentence_config,
    sentence_files,
)
from gte_np.similarity import SIMILARITY_FUNCTIONS, paraphrase_mining_embeddings
from gte_np.token_batch import TokenBatch
from gte_np.tokenization.tokenizer import Texts, Tokenizer, check_ids_fit, check_texts, check_unicode

if TYPE_CHECKING:
    from gte_np.explanation import Explanation

logger = logging.getLogger("gte_np")

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings")


@dataclass(frozen=True)
class EncodeOptions:
    """The arguments of `EmbeddingModel.encode`, but for the texts."""

    prompt_name: str | None = None
    prompt: str | None = None
    batch_size: int = 32
    show_progress_bar: bool | None = None
    output_value: str | None = "sentence_embedding"
    precision: str = "float32"
    normalize_embeddings: bool | None = None
    truncate_dim: int | None = None
    ranges: ArrayLike | None = None


class _Asked(NamedTuple):
    """The arguments of `EmbeddingModel.encode`, checked."""

    texts: list[str]
    is_single: bool
    wish: Wish
    batch_size: int
    show: bool
    output_value: str | None
    precision: str
    ranges: ArrayLike | None

    @property
    def is_vectors(self) -> bool:
        """Whether the vectors of texts are wanted, and nothing else."""
        return self.output_value == "sentence_embedding"


class EmbeddingModel(ModuleMethods, Loaded):
    """A text embedding model: the tokenizer, the encoder, the pooling and what follows it, of one repository.

    `name_or_path` is a folder, or a name on the hub; `revision`, `cache_dir`, `local_files_only` and `token` are for
    the hub. `backend` is "numpy", "numba", or "auto" for the best one there is. `dtype` is that of the arithmetic in
    linear layers, "float32", "bfloat16" or "int8": by default what the model was saved in, or float32. `truncate_dim`
    keeps only the first dimensions of each vector. `prompts` maps names to texts that go before a sentence, and
    `default_prompt_name` is the one that `encode` takes by itself. `pooling` ("cls", "mean", ...) overrides what the
    repository says, and so does `similarity_fn_name`. The arguments of SentenceTransformer are taken by their names
    there, too, where they can be had: DIFFERENCES.md has a list.

    A model of `KNOWN_MODELS` that is named as there also has that table's prompts, unless its repository has others;
    a folder has those of its files only.

    Its parts can be used by themselves: `tokenizer`, `bert` (a BertModel), `pooling_modes` and `modules` (what comes
    after pooling). `folder` is where the files are, and `transformer_folder` where config.json is among them.
    `do_lower_case` is whether texts are put in lower case before the tokenizer sees them. None of these can be set;
    `max_seq_length`, `truncate_dim`, `prompts`, `default_prompt_name` and `similarity_fn_name` may be.

    Raises ModelNotFoundError if the model is not there, CheckpointError if its files are damaged,
    UnsupportedModelError if they ask for what is not implemented, and InputError or TypeError for arguments that do
    not fit it.
    """

    FIXED = ("tokenizer", "bert", "pooling_modes", "modules", "folder", "transformer_folder", "do_lower_case")

    @translated(load_options)
    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        backend: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        pooling: str | None = None,
        similarity_fn_name: str | None = None,
    ) -> None:
        check_options(backend, dtype, threads)  # before a download
        override = None if pooling is None else check_pooling_modes([check_text("pooling", pooling)], "pooling")
        given_prompts = check_prompts(prompts)
        source = Source.find(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        known = KNOWN_MODELS.get(source.name) if source.name else None
        self.folder = source.folder
        self._files = LoadedFiles(source, sentence_files(source.folder))
        config = read_sentence_config(source.folder)
        self.transformer_folder = config.transformer_folder
        transformer = source.within(config.transformer_folder)
        self.do_lower_case = config.do_lower_case
        self.tokenizer = Tokenizer.from_source(transformer, lowercase_first=config.do_lower_case)
        self.bert = BertModel.from_source(transformer, backend=backend, dtype=dtype, threads=threads)
        check_ids_fit(self.tokenizer, self.bert.config.vocab_size, self.transformer_folder)

        self.pooling_modes = override or _choose_pooling(config, known)
        self.modules = config.modules
        self._is_without_normalize = False
        self._dimension = _output_dimension(self.bert.config.hidden_size * len(self.pooling_modes), config)
        self.truncate_dim = config.truncate_dim if truncate_dim is None else truncate_dim
        known_prompts = {"query": "", "document": ""} | (known.prompts if known else {})
        self.prompts = known_prompts | config.prompts | given_prompts
        self.default_prompt_name = default_prompt_name or config.default_prompt_name
        self.similarity_fn_name = config.similarity_fn_name if similarity_fn_name is None else similarity_fn_name

        positions = self.bert.config.max_position_embeddings
        limits = (config.max_seq_length, self.tokenizer.model_max_length, positions)
        self._max_seq_length = min(limit for limit in limits if limit is not None)
        self._assemble()

    def _assemble(self) -> None:
        """Put together what computes vectors. Copies share it: calls of several are merged, too."""
        self._head = Head(self.bert, self.pooling_modes, self.modules)
        merges = self.bert.merges
        self._merging = None if merges is None else Merging(self.tokenizer, self._head, *merges)
        self._apart = JobLine()

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {
            "dimension": self.get_sentence_embedding_dimension(),
            "pooling": "+".join(self.pooling_modes),
            "max_seq_length": self.max_seq_length,
        }
        return facts | {name: value for name, value in self.bert._facts().items() if name in ("dtype", "backend")}

    def __copy__(self) -> EmbeddingModel:
        twin = super().__copy__()
        vars(twin).update(tokenizer=copy(self.tokenizer), bert=copy(self.bert), _prompts=dict(self._prompts))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        made = ("folder", "transformer_folder", "modules", "_head", "_merging", "_apart")
        settings = {name: value for name, value in vars(self).items() if name not in made}
        return super().__getstate__() | settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.folder = state["_files"].source.folder
        config = read_sentence_config(self.folder)
        self.transformer_folder, self.modules = config.transformer_folder, config.modules
        if self._is_without_normalize:
            vars(self)["modules"] = _without_normalize(self.modules)
        self._assemble()

    @property
    def name_or_path(self) -> str:
        """The model's name on the hub, or its folder."""
        return str(self.folder) if self._files is None else self._files.source.name or str(self.folder)

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text that are read, [CLS] and [SEP] included; it may be set lower."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        positions = self.bert.config.max_position_embeddings
        self._max_seq_length = check_integer("max_seq_length", value, self.tokenizer.special_count, positions)

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan"; it may be set."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._similarity_fn_name = check_choice("similarity_fn_name", value, tuple(SIMILARITY_FUNCTIONS))

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions of each vector are kept, the first ones; None for all. It may be set."""
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = self._check_truncate_dim(value)

    @property
    def prompts(self) -> dict[str, str]:
        """Names of prompts, and the texts that they put before a sentence; they may be changed and set."""
        return self._prompts

    @prompts.setter
    def prompts(self, value: Mapping[str, str]) -> None:
        self._prompts = check_prompts(value)

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that `encode` takes by itself, or None; it may be set."""
        return self._default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, value: str | None) -> None:
        if value is not None:
            self._prompt_named("default_prompt_name", value)
        self._default_prompt_name = value

    def get_embedding_dimension(self) -> int:
        """The length of a vector: D, unless a Dense module or `truncate_dim` changes it."""
        return self.truncate_dim or self._dimension

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before sentence-transformers 6

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """In this context, `truncate_dim` is another one, for all threads that use the model."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def with_threads(self, threads: int) -> EmbeddingModel:
        """A copy, which shares the weights, whose calls use at most so many threads; so do its pickles."""
        twin = copy(self)
        vars(twin)["bert"] = self.bert.with_threads(threads)
        twin._assemble()
        return twin

    def without_normalize(self) -> EmbeddingModel:
        """A copy, which shares the weights, without the repository's Normalize modules; so are its pickles.

        It is what model[:-1] is in sentence-transformers, for a model that ends with Normalize.
        """
        twin = copy(self)
        vars(twin).update(modules=_without_normalize(self.modules), _is_without_normalize=True)
        twin._assemble()
        return twin

    def tokenize(self, texts: Texts) -> TokenBatch:
        """Return the token ids of the texts, cut to `max_seq_length`, and their token counts before that.

        Text b was cut where token_counts[b] > lengths[b]. Counting reads each text to its end.
        """
        return self.tokenizer.tokenize(texts, self.max_seq_length)

    def encode_tokens(
        self,
        tokens: TokenBatch,
        *,
        output_value: str = "sentence_embedding",
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
    ) -> Any:
        """Return the vectors of texts that are token ids already, all in one batch: (B, D) float32.

        The options are those of `encode`, which gives the same vectors for the texts of `tokenize`. Raises TypeError
        for anything but a TokenBatch, and InputError for ids that the model does not have, for texts with more tokens
        than it has positions, and for arguments that cannot be.
        """
        if not isinstance(tokens, TokenBatch):
            raise TypeError(f"expected a TokenBatch, such as tokenize gives, got {type(tokens).__name__}.")
        check_choice("output_value", output_value, OUTPUT_VALUES)
        finish = self._finish(normalize_embeddings, truncate_dim)
        if output_value == "token_embeddings":
            return list(self._hidden_states(tokens))
        return self._head.vectors(tokens, finish)

    @translated(ENCODE.own)
    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        *,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        ranges: ArrayLike | None = None,
    ) -> Any:
        """Return the vectors of texts: (B, D) float32 for a list or another iterable, (D,) for a single string.

        `prompt`, or the one called `prompt_name`, goes before each text. `batch_size` is the most texts that go
        through the encoder together; they are also limited in tokens, so memory does not depend on their lengths.
        Calls of few texts from several threads are computed together, which changes no bit of a vector. A
        progress bar is shown if asked for, or by default at log level INFO.

        With `output_value` "token_embeddings" the result is a list of (T, D) hidden states, or a single one; with
        None it is a list of dicts, or a single one, of "input_ids" and "attention_mask", (T,), "token_embeddings",
        (T, D), and "sentence_embedding", (D',). `precision` may be int8, uint8, binary or ubinary, and `ranges`,
        (2, D), puts int8 and uint8 on the scale of other vectors, such as those that `gte-np embed` leaves beside its
        output: see `quantize_embeddings`. `normalize_embeddings` True makes all vectors of length 1; None and False
        do what the repository says, as in sentence-transformers: `without_normalize` gives the vectors before that.
        `truncate_dim` overrides the model's.

        The other arguments of sentence-transformers, such as `convert_to_numpy` and `device`, are accepted with the
        values that change nothing, and `sentences` may be called `inputs`.

        A text of more than `max_seq_length` tokens is cut; one warning for each call tells how many were. Raises
        TypeError for anything but texts, and InputError for arguments that cannot be.
        """
        options = EncodeOptions(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            ranges=ranges,
        )
        asked = self._asked(sentences, options)
        if self._merging is None or not asked.is_vectors or not 0 < len(asked.texts) <= TEXTS_AT_ONCE:
            return self._encode_apart(asked)
        texts, places = different_texts(asked.texts)
        with progress_bar(len(asked.texts), asked.show) as advance:
            merged = self._merging.compute(texts, asked.wish, asked.batch_size)
            advance(len(asked.texts))
        return self._finished(asked, merged.vectors[places], merged.was_cut[places])

    async def aencode(self, sentences: str | Texts, **options: Any) -> Any:
        """`encode`, with its arguments, for asyncio: the same vectors, without a thread for each call.

        Texts are computed together with those of other calls, a few of each call at a time. With token embeddings,
        and with the NumPy backend, one call is computed after the other. If the task is cancelled, what was not begun
        is dropped. Errors are those of `encode`.
        """
        asked = self._asked(sentences, EncodeOptions(**ENCODE.own(options)))
        if self._merging is None or not asked.is_vectors or not asked.texts:
            return await do_apart(self._apart, lambda: self._encode_apart(asked))
        texts, places = different_texts(asked.texts)
        with progress_bar(len(asked.texts), asked.show) as advance:
            merged = await self._merging.compute_async(texts, asked.wish, asked.batch_size)
            advance(len(asked.texts))
        return self._finished(asked, merged.vectors[places], merged.was_cut[places])

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
    ) -> Iterator[FloatArray]:
        """Yield the vector, (D,) float32, of each text of an iterable, which may be endless, in order.

        The vectors are those of `encode`, whose options these are. Memory is constant: texts are taken in windows of
        at most 4,096, one window ahead of the vectors that have been given back, in the thread of the caller. While
        one window is computed, the next is tokenized on another thread, which ends with the generator.

        Errors are those of `encode`. An exception of the iterable is raised here, after the vectors of all windows
        but the last one before it.
        """
        if isinstance(sentences, str | bytes):
            raise TypeError(f"expected an iterable of str, got {type(sentences).__name__}.")
        windows = self.encode_windows(
            windows_of(check_unicode(text, index) for index, text in enumerate(sentences)),
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
        )
        return self._one_by_one(windows)

    def encode_windows(
        self,
        windows: Iterable[list[str]],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
    ) -> Iterator[Processed[FloatArray]]:
        """`encode_stream` for lists of texts: yield the vectors of one list after the other, and what was cut.

        A list is one window, whatever its size.
        """
        batch_size = check_integer("batch_size", batch_size, least=1)
        finish = self._finish(normalize_embeddings, truncate_dim)
        tokenize = self._tokenizing(self.resolve_prompt(prompt_name, prompt))
        compute = partial(self._head.vectors, finish=finish)
        steps: Steps[FloatArray] = Steps(tokenize, compute, lambda done: None)
        return process_windows(windows, steps, batch_size)

    @translated(ENCODE.own)
    def encode_query(
        self,
        sentences: str | Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *others: Any,
        **options: Any,
    ) -> Any:
        """`encode`, with its arguments, and with the prompt called "query", unless another one is given."""
        name = self._prompt_for(("query",), prompt_name, prompt)
        return self.encode(sentences, name, prompt, *others, **options)

    @translated(ENCODE.own)
    def encode_document(
        self,
        sentences: str | Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *others: Any,
        **options: Any,
    ) -> Any:
        """`encode`, with its arguments, and with the prompt called "document", unless another one is given.

        If `prompts` has been set to others, the one called "passage" or "corpus" takes its place.
        """
        name = self._prompt_for(("document", "passage", "corpus"), prompt_name, prompt)
        return self.encode(sentences, name, prompt, *others, **options)

    def encode_multi_process(
        self,
        sentences: Texts,
        pool: Pool,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        **options: Any,
    ) -> Any:
        """`encode`, with its arguments; the work is done by threads, whatever the pool."""
        own = ENCODE.own({**options, "pool": pool, "chunk_size": chunk_size})
        return self.encode(sentences, prompt_name, prompt, batch_size, **own)

    def fingerprint(self) -> dict[str, Any]:
        """What the vectors of this model depend on, but for its settings: equal ones give equal bits.

        `model` is a SHA-256 of its files, without packed weights, which hold nothing else. Raises CheckpointError if
        a file has changed since the model was loaded.
        """
        from hashlib import sha256  # OpenSSL, which takes some milliseconds to load

        files = [part._files.digests() for part in (self, self.tokenizer, self.bert) if part._files is not None]
        digests = [
            {name: digest for name, digest in sorted(part.items()) if not fnmatch(name, PANELS_FILES)}
            for part in files
        ]
        return {
            "model": sha256(repr(digests).encode()).hexdigest(),
            "dtype": self.bert.dtype,
            "backend": self.bert.arithmetic,
            "pooling": list(self.pooling_modes),
        }

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]:
        """Similarities of all pairs by `similarity_fn_name`: (A, D), (B, D) -> (A, B)."""
        return SIMILARITY_FUNCTIONS[self.similarity_fn_name].all_pairs(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[Any]:
        """Similarities row by row by `similarity_fn_name`: (B, D), (B, D) -> (B,)."""
        return SIMILARITY_FUNCTIONS[self.similarity_fn_name].row_by_row(embeddings1, embeddings2)

    def explain(self, a: str, b: str | None = None) -> Explanation:
        """Return why two texts have the cosine that they have, or what becomes of one text, token by token.

        The default prompt goes before each text, as in `encode`. See `gte_np.explanation`: `cosine`, `tokens`,
        `contributions` (n, m), `unexplained`, `deletions`, `layers`, `attentions` (L, H, T, T) of each text, and
        `save(path)` for one page with all of them.

        Raises TypeError for anything but str, and InputError for a text that is empty or no valid Unicode.
        """
        from gte_np.explanation import explain  # what only few processes need, none has to wait for

        return explain(self, check_texts([a] if b is None else [a, b]))

    @translated(SAVE.own)
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder, which is made if it is not there, with what was set since it was loaded.

        In float32, the weights are the published ones, and sentence-transformers reads the folder too. A model with
        dtype "bfloat16" or "int8" is written in half and a quarter of the size of float32, and read again in that
        dtype unless another is given. Others read bfloat16, too; int8 is for gte_np, see ARCHITECTURE.md.

        A model that is in the folder already is replaced with all of its files; others, such as README.md, .git or
        onnx, are kept as they are. The new folder is written beside the old one and takes its place at the end, so an
        error or a kill leaves one of them, whole. (On Windows, and on the few file systems where two folders cannot
        change places in one step, see `gte_np.files.whole_folder`.)

        Raises InputError for the folder that the model was loaded from, one in it or around it, a folder of other
        files than a model's, a file, the working directory, one around it and a mount point; and OSError for a folder
        that cannot be written.
        """
        from gte_np.saving import save_model  # what only few processes need, none has to wait for

        save_model(self, folder)

    save = save_pretrained

    @classmethod
    def load(cls, input_path: str | os.PathLike[str]) -> EmbeddingModel:
        """The model of a folder, or of a name, as by EmbeddingModel(input_path)."""
        return cls(input_path)

    def _tokenizing(self, prefix: str) -> Callable[[list[str]], TokenBatch]:
        """What puts a prompt before texts and tokenizes them. A long text is read until it is known to be cut."""

        def tokenize(texts: list[str]) -> TokenBatch:
            prompted = [prefix + text for text in texts]
            return self.tokenizer.tokenize(prompted, self.max_seq_length, count_all=False)

        return tokenize

    def _asked(self, sentences: str | Texts, options: EncodeOptions) -> _Asked:
        """Check the arguments of `encode`."""
        texts = check_texts([sentences] if isinstance(sentences, str) else sentences)
        if options.output_value is not None:
            check_choice("output_value", options.output_value, OUTPUT_VALUES)
        check_choice("precision", options.precision, PRECISIONS)
        batch_size = check_integer("batch_size", options.batch_size, least=1)
        finish = self._finish(options.normalize_embeddings, options.truncate_dim)
        check_flag("show_progress_bar", options.show_progress_bar, optional=True)
        prefix = self.resolve_prompt(options.prompt_name, options.prompt)
        show = options.show_progress_bar
        if options.output_value != "sentence_embedding" and options.precision != "float32":
            raise InputError(f"expected precision float32 with {options.output_value}, got {options.precision}.")
        return _Asked(
            texts=texts,
            is_single=isinstance(sentences, str),
            wish=Wish(prefix, self.max_seq_length, finish),
            batch_size=batch_size,
            show=logger.isEnabledFor(logging.INFO) if show is None else show,
            output_value=options.output_value,
            precision=options.precision,
            ranges=options.ranges,
        )

    def _encode_apart(self, asked: _Asked) -> Any:
        """Encode the texts of one call by themselves."""
        with progress_bar(len(asked.texts), asked.show) as advance:
            compute = self._computing(asked.output_value, asked.wish.finish)
            steps: Steps[Any] = Steps(self._tokenizing(asked.wish.prefix), compute, advance)
            rows, was_cut, _ = process(asked.texts, steps, asked.batch_size)
        return self._finished(asked, rows, was_cut)

    def _computing(self, output_value: str | None, finish: Finish) -> Callable[[TokenBatch], Iterable[Any]]:
        """What makes of a batch the result of each text."""
        if output_value is None:
            return partial(self._head.features, finish=finish)
        if output_value == "token_embeddings":
            return self._hidden_states
        return partial(self._head.vectors, finish=finish)

    def _finished(self, asked: _Asked, rows: Sequence[Any] | FloatArray, was_cut: NDArray[np.bool_]) -> Any:
        """The result of `encode`, of a row for each text."""
        self.warn_of_cuts(int(was_cut.sum()), len(asked.texts))
        if not asked.is_vectors:  # those of equal texts are one array, and rows of a batch's
            return rows[0] if asked.is_single else [deepcopy(row) for row in rows]
        dimension = asked.wish.finish.dimension or self._dimension
        matrix = np.asarray(rows) if len(rows) else np.empty((0, dimension), np.float32)
        vectors = quantize_embeddings(matrix, asked.precision, asked.ranges)
        return vectors[0] if asked.is_single else vectors

    def _finish(self, normalize_embeddings: bool | None, truncate_dim: int | None) -> Finish:
        """Check what is wanted of vectors after pooling."""
        check_flag("normalize_embeddings", normalize_embeddings, optional=True)
        return Finish(bool(normalize_embeddings), self._check_truncate_dim(truncate_dim) or self.truncate_dim)

    def _one_by_one(self, windows: Iterator[Processed[FloatArray]]) -> Iterator[FloatArray]:
        texts = cut = 0
        for window in windows:
            texts, cut = texts + len(window.results), cut + int(window.was_cut.sum())
            yield from window.results
        self.warn_of_cuts(cut, texts)

    def warn_of_cuts(self, cut: int, texts: int) -> None:
        """Log a warning, if texts were cut."""
        if cut:
            logger.warning("%d of %d texts were cut to %d tokens.", cut, texts, self.max_seq_length)

    def _hidden_states(self, batch: TokenBatch) -> Iterator[FloatArray]:
        """The hidden states of each text: (T, D)."""
        hidden = self.bert.encode_batch(batch).last_hidden_state
        return (hidden[batch.slice(text)] for text in range(len(batch)))

    def resolve_prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        """The text that `encode` puts before each text: `prompt`, or what is called `prompt_name`."""
        if prompt is not None:
            return check_text("prompt", prompt)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        return "" if name is None else self._prompt_named("prompt_name", name)

    def _prompt_for(self, names: Iterable[str], prompt_name: str | None, prompt: str | None) -> str | None:
        """The prompt name that is given, or if no prompt is, the first of the names that `prompts` has."""
        if prompt_name is not None or prompt is not None:
            return prompt_name
        return next((name for name in names if name in self.prompts), None)

    def _prompt_named(self, argument: str, name: str) -> str:
        if check_text(argument, name) not in self.prompts:
            raise InputError(f"expected a prompt name among {', '.join(map(str, self.prompts))}, got {name!r:.80}.")
        return check_text(f"prompt {name!r}", self.prompts[name])  # a dict that callers may change

    def _check_truncate_dim(self, truncate_dim: int | None) -> int | None:
        return None if truncate_dim is None else check_integer("truncate_dim", truncate_dim, 1, self._dimension)


def paraphrase_mining(
    model: EmbeddingModel,
    sentences: Texts,
    show_progress_bar: bool | None = None,
    batch_size: int = 32,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    truncate_dim: int | None = None,
    **options: Any,
) -> list[tuple[float, int, int]]:
    """Encode the sentences and return (score, i, j) of the pairs that are most alike, best first.

    `options` are those of `paraphrase_mining_embeddings`, the others those of `EmbeddingModel.encode`.
    """
    embeddings = model.encode(
        sentences,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
        prompt_name=prompt_name,
        prompt=prompt,
        truncate_dim=truncate_dim,
    )
    return paraphrase_mining_embeddings(embeddings, **options)


def _choose_pooling(config: SentenceConfig, known: KnownModel | None) -> tuple[str, ...]:
    if config.pooling_modes is not None:
        return config.pooling_modes
    if known is not None:
        return (known.pooling,)
    logger.warning(
        "%s has no pooling files: mean pooling is used, as sentence-transformers does. If its README says otherwise, "
        "give pooling='cls'.",
        config.transformer_folder,
    )
    return ("mean",)


def _without_normalize(modules: tuple[Module, ...]) -> tuple[Module, ...]:
    return tuple(module for module in modules if not isinstance(module, Normalize))


def _output_dimension(pooled: int, config: SentenceConfig) -> int:
    """The length of a vector after the modules. Raise CheckpointError if they do not fit each other."""
    for module in config.modules:
        if isinstance(module, Dense):
            if module.weight.shape[1] != pooled:
                raise CheckpointError(
                    f"{config.transformer_folder}: expected a Dense module for vectors of {pooled}, got one for "
                    f"{module.weight.shape[1]}."
                )
            pooled = module.weight.shape[0]
    return pooled


def check_prompts(prompts: Mapping[str, str] | None) -> dict[str, str]:
    """Return the prompts. Raise TypeError if they do not map names to texts."""
    if not isinstance(prompts, Mapping | None):
        raise TypeError(f"expected prompts to map names to texts, got {type(prompts).__name__}.")
    return {
        check_text("the name of a prompt", name): check_text(f"prompt {name!r:.80}", prompt)
        for name, prompt in (prompts or {}).items()
    }
