"""What do the kernels compile to for a GPU that need not be there?"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from clipsel_core.scoring import kernels
from clipsel_core.scoring.tile_sizes import CANDIDATES

INSTRUCTIONS = ("wgmma.mma_async", "mma.sync", "atom.", "red.")
TYPES = {"out": "*fp64", "scale": "fp32", "shift": "fp32"}


def report(capability: int, dtype: str, which: int, ones: bool) -> None:
    """Prints a JSON object: of each kernel, its shared memory and stack in bytes and which of INSTRUCTIONS it has.

    which: of the candidate sizes. ones: for a single row on both sides, which Triton compiles apart.
    """
    sizes = CANDIDATES[which]
    block = {"WIDTH": 768, "BM": sizes.rows, "BN": sizes.columns, "BK": sizes.depth, "GROUP": 8}
    compiled = {
        kernel.__name__: _compiled(kernel, constants | (_ones(kernel) if ones else {}), dtype, sizes, capability)
        for kernel, constants in (
            (kernels.sum_exp2_block, block),
            (kernels.log2_sum_block, block),
            (kernels.max_abs_block, block),
            (kernels.add_parts_block, {"PARTS": 16, "COLUMNS": 128}),
        )
    }
    print(json.dumps(compiled))


def _ones(kernel) -> dict[str, int]:
    return {name: 1 for name in ("n", "m", "count") if name in kernel.arg_names}


def _compiled(kernel, constants: dict[str, int], dtype: str, sizes, capability: int) -> dict:
    names = kernel.arg_names
    types = {"x": f"*{dtype}", "y": f"*{dtype}", **TYPES}
    kinds = {name: types.get(name, "*fp32" if name.endswith(("parts", "tops")) else "i32") for name in names}
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else kinds[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if kinds[name].startswith("*")},
    )
    options = {"num_warps": sizes.warps, "num_stages": sizes.stages, "enable_fp_fusion": True}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = found.asm["ptx"]
    return {
        "shared": found.metadata.shared,
        "stack": _stack(found.asm["cubin"]),
        "instructions": [name for name in INSTRUCTIONS if _has(ptx, name)],
    }


def _has(ptx: str, instruction: str) -> bool:
    return re.search(rf"\b{re.escape(instruction)}", ptx) is not None


def _stack(cubin: bytes) -> int:
    """Bytes of stack that a thread needs, which is where spilled registers go."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(int(found) for found in re.findall(r"STACK:(\d+)", shown))
