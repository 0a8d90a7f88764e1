"""The config.pbtxt of Triton's models.

Source: model_config.proto of https://github.com/triton-inference-server/common, whose text form
this writes without its library. A test reads it back with that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from difftool.diffusion import Feature, ModelSpec
from difftool.runtime import is_image
from difftool.serve import ARRAYS, INPUTS, PREVIEWS

Field = Mapping[str, Any]


class Word(str):
    """A word of the text form that stands without quotes: the name of a constant."""


def python_config(spec: ModelSpec, parameters: Mapping[str, str], *, stream: bool) -> str:
    """Return the configuration of a model around the step scheduler.

    Its inputs are those of the v2 protocol of `difftool serve`, and none is required. With `stream`
    it is decoupled: a client that reads a stream sees previews before the samples.
    """
    inputs = [_tensor(name, *kind) for name, kind in INPUTS.items()]
    inputs += [_tensor(name, "FP32", [-1, *spec.shape]) for name in ARRAYS]
    outputs = [_tensor("samples", "FP32", [-1, *spec.shape]), _tensor("seed", "UINT64", [1])]
    decoupled: Field = {}
    if stream:
        inputs.append(_tensor(PREVIEWS, "INT64", [1]))
        outputs.append(_tensor("preview", "FP32", spec.shape))
        outputs += [_tensor(name, "INT64", [1]) for name in ("sample", "step")]
        decoupled = {"model_transaction_policy": {"decoupled": True}}
    return _text(
        {
            "backend": "python",
            "max_batch_size": 0,
            "input": [{**each, "optional": True} for each in inputs],
            "output": outputs,
            "instance_group": [{"count": 1}],
            **decoupled,
            "parameters": [
                {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
            ],
        }
    )


def onnx_config(spec: ModelSpec, features: frozenset[Feature]) -> str:
    """Return the configuration of the plain `sampler.onnx` on Triton's ONNX Runtime backend."""
    inputs = [_tensor("seed", "UINT64", [1]), _tensor("n", "INT64", [1])]
    optional = [_tensor("first_sample", "INT64", [1])]
    if spec.classes:
        optional.append(_tensor("label", "INT64", [-1]))
        if Feature.GUIDANCE in features:
            optional.append(_tensor("guidance_scale", "FP32", [1]))
    outputs = [_tensor("samples", "FP32", [-1, *spec.shape])]
    if is_image(spec):
        channels, *size = spec.shape
        outputs.insert(0, _tensor("images", "UINT8", [-1, *size, channels]))
    return _text(
        {
            "backend": "onnxruntime",
            "max_batch_size": 0,
            "input": [*inputs, *({**each, "optional": True} for each in optional)],
            "output": outputs,
            "instance_group": [{"count": 1}],
        }
    )


_DATATYPES: Final = {"BYTES": "STRING"}  # a configuration has other names than the protocol


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> Field:
    kind = Word(f"TYPE_{_DATATYPES.get(datatype, datatype)}")
    return {"name": name, "data_type": kind, "dims": list(shape)}


def _text(fields: Field) -> str:
    return "".join(f"{line}\n" for line in _lines(fields))


def _lines(fields: Field) -> Iterator[str]:
    """Write a message: a list of messages is a field that is repeated."""
    for name, value in fields.items():
        messages = value if isinstance(value, list) else [value]
        if all(isinstance(each, Mapping) for each in messages):
            for each in messages:
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(each))
                yield "}"
        else:
            yield f"{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    # JSON's escapes of ASCII are those of the text form, too.
    return value if isinstance(value, Word) else json.dumps(value)
