"""The networks that difftool trains and exports.

Each is a module with two methods. Its constructor takes keywords that JSON can hold.

    network.condition(cond [R]) -> [R, C]         all that depends on cond; runs before the loop
    network.condition(cond [R], label [R])        the same for a network with classes; int64 labels
    network(x [N, *S], c [N, C]) -> F [N, *S]     the raw network; C may be 0
"""

import inspect
from typing import Final

from torch import Tensor, nn

from difftool.diffusion.calls import NetworkCall, require_types
from difftool.errors import UsageError, first_line, is_out_of_memory, quoted
from difftool.networks.linear_attention_unet import LinearAttentionUNet
from difftool.networks.mlp import MLP
from difftool.networks.ncsn import NCSN, NCSNv2
from difftool.networks.ncsnpp import NCSNpp
from difftool.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {
    "linear_attention_unet": LinearAttentionUNet,
    "mlp": MLP,
    "ncsn": NCSN,
    "ncsnpp": NCSNpp,
    "ncsnv2": NCSNv2,
    "unet": UNet,
}
# The exceptions that torch raises if sizes and numbers do not fit each other.
MISFITS: Final = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


def build_network(call: NetworkCall) -> nn.Module:
    """Build a network, freshly initialized.

    Raises:
        UsageError: the kind is unknown, an argument is unknown or missing, or its value is wrong.
    """
    kind, arguments = call.kind, call.arguments
    if kind not in NETWORKS:
        raise UsageError(
            f"unknown network {quoted(kind)}", f"known networks: {', '.join(NETWORKS)}"
        )
    network = NETWORKS[kind]
    known = inspect.signature(network).parameters
    for name in arguments:
        if name not in known:
            raise UsageError(
                f"network {quoted(kind)} has no argument {quoted(name)}",
                f"it has {', '.join(known)}",
            )
    for name, parameter in known.items():
        if name not in arguments and parameter.default is parameter.empty:
            raise UsageError(f"network {quoted(kind)} needs the argument {quoted(name)}", "give it")
    require_types(f"network {kind}", network.__init__, arguments)
    try:
        return network(**arguments)
    except MISFITS as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"network {kind} cannot be made: {first_line(error)}",
            "check that its numbers fit each other",
        ) from error


def raw_output(network: nn.Module, x: Tensor, cond: Tensor, *label: Tensor) -> Tensor:
    """Return F [N, *S] of x at cond [N] and, for a network with classes, label [N]."""
    output: Tensor = network(x, network.condition(cond, *label))  # type: ignore[operator]
    return output


def num_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
