"""Kernels as Triton compiles them for an NVIDIA GPU, run on a CPU, instruction by instruction.

    PIXELNET_TEST_DEVICE=cuda \\
        python -m pytest -p tests.fake_cuda -p tests.simulator.plugin tests/gate

Triton's interpreter runs what a kernel says; this runs what the compiler made of it (PTX): layouts
and swizzles, copies and products under way, barriers, TMA. It is a CPU's memory that kernels read
and write, so the tests are those of a GPU. What a GPU lets pass is an error here: an access outside
of the tensors of a launch, a race in shared memory, a barrier that nobody ends; copies land at the
last moment. PIXELNET_SIMULATOR_SEED=N takes blocks, and warps between barriers, in another order;
PIXELNET_SIMULATOR_TARGET=sm_80 compiles for another GPU than Hopper.

It does not know what ptxas makes of PTX, how long anything takes, and Blackwell's `tcgen05`.
Approximate instructions (`ex2.approx`) are exact. That copies by `cp.async` come before products
without a proxy fence is taken as right: Triton relies on it.

Files, from bottom to top: core/ (C++: the machine), mnemonics.py (PTX's words), program.py (its
text), machine.py (builds core/ and runs a program), launches.py (the arguments of a launch),
plugin.py.
"""
