"""Measure how much of a bare PyTorch loop's speed the trainer reaches.

Both have the same network, batch, precision, memory layout and fused Adam, and random images
in memory. The bare loop is the shortest that trains a DDPM. The trainer adds an average of the
weights, gradient clipping, the learning rate's course, records, and noise that is a function of
(seed, step). Checkpoints are not in it: there is one in a thousand steps or more.
"""

import copy
import sys

import torch
import torch.nn.functional as F
from common.inside_train import Data, TrainState, Window
from common.report import Figure, finish, parser, timed
from common.timing import Turn, interleave, ratios, repeated

from difftool.train import apply_overrides, preset

RATIO_LIMIT = 0.9
SHAPES = {"digits": (1, 8, 8), "ddpm-mnist-small": (1, 28, 28)}  # of what a preset trains on
ITEMS, BATCH = 4096, 64


def main() -> int:
    arguments = parser(__doc__, "out", rounds=15)
    arguments.add_argument("presets", nargs="*", default=list(SHAPES), metavar="PRESET")
    arguments.add_argument("--steps", type=int, default=10, help="in each round")
    options = arguments.parse_args()
    rounds, steps = options.rounds, options.steps
    figures = [figure for name in options.presets for figure in compare(name, rounds, steps)]
    options.threads = torch.get_num_threads()
    return finish("trainer", figures, options, precision="float32", steps=options.steps)


def compare(name: str, rounds: int, steps: int) -> list[Figure]:
    """Measure images a second of the trainer and of a bare loop, and their ratio."""
    config = apply_overrides(preset(name), [f"run.batch={BATCH}"])
    torch.manual_seed(0)
    images = torch.randint(0, 256, (ITEMS, *SHAPES[name]), dtype=torch.uint8)
    state = TrainState(config, Data(images))
    candidates = {"trainer": training(state, steps), "bare loop": bare_loop(state, steps)}
    seconds = interleave(candidates, rounds=rounds)
    speeds = {who: [steps * BATCH / value for value in values] for who, values in seconds.items()}
    ratio = ratios(speeds["trainer"], speeds["bare loop"])
    return [
        *timed({f"{name}: {who}": values for who, values in speeds.items()}, "images/s"),
        Figure(f"{name}: trainer / bare loop", ratio, at_least=RATIO_LIMIT),
    ]


def training(state: TrainState, steps: int) -> Turn:
    """Make a turn of `steps` steps as `train` takes them, with a record at the end."""

    def run() -> None:
        window = Window(state)
        for _ in range(steps):
            window.add(*state.advance())
        window.close()

    return run


def bare_loop(state: TrainState, steps: int) -> Turn:
    """Make a turn of as many steps of a copy of the state's network, in plain PyTorch."""
    network = copy.deepcopy(state.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    images = state.data.items
    schedule = state.spec.schedule
    alpha = torch.tensor(schedule.alpha, dtype=torch.float32).view(-1, 1, 1, 1)
    sigma = torch.tensor(schedule.sigma, dtype=torch.float32).view(-1, 1, 1, 1)

    def step() -> None:
        x0 = images[torch.randint(len(images), (BATCH,))] / 127.5 - 1
        timestep = torch.randint(len(schedule), (BATCH,))
        noise = torch.randn(x0.shape)
        x = alpha[timestep] * x0 + sigma[timestep] * noise
        prediction = network(x, network.condition(timestep.float()))
        loss = F.mse_loss(prediction, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return repeated(step, steps)


if __name__ == "__main__":
    sys.exit(main())
