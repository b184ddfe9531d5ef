"""Kernels as Triton compiles them for an NVIDIA GPU, run on a CPU, instruction by instruction.

    PIXELNET_TEST_DEVICE=cuda \\
        python -m pytest -p tests.fake_cuda -p tests.simulator.plugin tests/gate

Triton's interpreter runs what a kernel says; this runs what the compiler made of it (PTX): layouts
and swizzles, copies and products under way, barriers, TMA. It is a CPU's memory that kernels read
and write, so the tests are those of a GPU. What a GPU lets pass is an error here: an access outside
of the tensors of a launch, a race in shared memory, a sum that is read before its product was
waited for, a barrier that nobody ends; copies land at the last moment. PIXELNET_SIMULATOR_SEED=N
takes blocks, and warps between barriers, in another order; PIXELNET_SIMULATOR_TARGET=sm_80 compiles
for another GPU than Hopper. A word of PTX that it does not know is an error with its line.

What it does not see:

- what ptxas makes of PTX, and how long anything takes;
- races between the threads of one warp, which it runs in step;
- races in global memory, and between blocks, which it runs one after the other;
- what the source of a copy becomes while the copy is under way: it is read when it is issued;
- that a copy by cp.async needs a proxy fence before a product: Triton leaves it out;
- that TMA needs a fence behind the barrier's set-up, or behind loads of what it overwrites.

Approximate instructions (`ex2.approx`, `div.full`) are exact. TMA's stores, Blackwell's `tcgen05`
and barriers of some of the warps are not there. All threads of a warp have to take part where
PTX lets some of them: Triton never asks for less.

Files, from bottom to top: core/ (C++: the machine); operands.py and grammar.py (how PTX is read),
arithmetic.py, transfers.py and warps.py (its words), mnemonics.py (all of them), program.py (a
kernel's text), machine.py (builds core/ and runs a program), launches.py (the arguments of a
launch), plugin.py. small.py is for the tests of all this.
"""
