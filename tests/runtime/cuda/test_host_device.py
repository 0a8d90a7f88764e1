"""The CPU as a device: its noise is numpy's, and a captured graph is its work once more."""

import numpy as np

from difftool.diffusion.noise import SAMPLING, normal
from difftool.runtime.cuda.host_device import HostDevice


def test_the_noise_of_each_samples_row() -> None:
    device = HostDevice()
    noise = device.allocate((4, 1, 3, 3), np.float32)
    row, draws = device.allocate((4,), np.int64), device.allocate((3,), np.uint32)
    samples, seed = device.allocate((4,), np.uint32), device.allocate((4,), np.uint64)
    device.upload(noise, np.full((4, 1, 3, 3), 9, np.float32))
    device.upload(row, np.array([2, 0, 3, 2]))  # the third is beyond the table
    device.upload(draws, np.array([5, 6, 7], np.uint32))
    device.upload(samples, np.array([10, 11, 12, 13], np.uint32))
    seeds = np.array([2**63, 3, 2**63, 5], np.uint64)
    device.upload(seed, seeds)
    sizes = [np.uint32(SAMPLING), np.float32(2), np.int32(4), np.int32(9), np.int32(3)]
    device.launch("difftool_noise", [noise, row, draws, samples, seed, *sizes], 12)
    found = np.empty((4, 1, 3, 3), np.float32)
    device.download(noise, found)
    for sample, (index, draw) in {0: (10, 7), 1: (11, 5), 3: (13, 7)}.items():
        expected = 2 * normal(int(seeds[sample]), draw, [index], (1, 3, 3))[0]
        assert np.array_equal(found[sample], expected)
    assert (found[2] == 9).all()


def test_a_captured_graph_does_its_work_once_more() -> None:
    device, log = HostDevice(), []
    graph = device.capture(lambda: log.append("work"))
    assert log == []
    graph()
    assert log == ["work"]
    row, end = device.allocate((2,), np.int64), device.allocate((1,), np.int64)

    def move() -> None:
        row.array[...] += 2

    loop = device.capture_loop(move, row, end)
    loop()
    assert row.array[0] == 2  # a loop runs at least once
    device.upload(end, np.array([7]))
    loop()
    assert row.array[0] == 8
