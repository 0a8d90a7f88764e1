"""What an interpreter shows of a model and its parts is a line, however many levels there are."""

import difftool
from difftool.runtime import Request


def test_each_fits_on_a_screen() -> None:
    model = difftool.load("ddpm-mnist", backend="onnxruntime-cpu")
    program = model.default_program()
    assert repr(program) == (
        "<Program ddpm(steps=1000, variance='large', clip=True): 1000 evaluations from normal(1.0)>"
    )
    assert repr(model).startswith("<Model ddpm-mnist (1, 28, 28): onnxruntime-cpu, fp32, batches ")
    assert "1000 levels, sigma 0.01 to 1>" in repr(model.spec)
    assert repr(model.spec.up_to(0.5).schedule).endswith(
        "500 levels, sigma 0.01 to 0.96, 500 dropped>"
    )
    for each in (model, model.spec, model.bundle, program, Request(program)):
        text = repr(each)
        assert len(text.splitlines()) == 1
        assert len(text) < 600
