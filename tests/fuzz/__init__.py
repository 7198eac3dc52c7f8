"""Fuzzing: what goes in is damaged or drawn at random, and what comes out is right or one of the package's errors.

    make test                                                    # a bounded part of it, the same in every run
    python -m tests.fuzz checkpoints --calls 10000 --seed 1      # damaged models
    python -m tests.fuzz inputs --calls 10000                    # damaged inputs of jobs
    python -m tests.fuzz texts --calls 2000                      # batches of fifty texts
    python -m tests.fuzz callers --seconds 60                    # threads that encode while others load models
    python -m tests.fuzz checkpoints --seed 1 --first 123 --calls 1    # one call again

A *kind* of fuzzing (`kinds`) makes calls by their numbers: a seed and a number make a call, whatever was called
before. `children` runs them in processes of their own, whose memory and time are limited, and goes on behind a crash.

`damage` damages files with a Random. It may be one of a numbered call, or Hypothesis's, which shrinks what fails: the
tests here, `test_*.py`, use both. With FUZZ=long in the environment they draw other examples, and many. What was
found once is kept, as an @example or in `corpus`, as FORM/CASE/PATH: a file that takes the place of PATH in a model.

To fuzz another kind of input, add a function that damages it to `damage.BY_SUFFIX`, a kind to `kinds.KINDS`, and
files that failed to `corpus`.
"""
