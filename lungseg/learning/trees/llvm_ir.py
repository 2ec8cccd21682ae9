"""The program of the CPU engine in LLVM assembly, for any processor that LLVM knows, without a compiler.

It works on blocks of ROWS rows. `code` turns each column that the trees read into 8-bit codes (see
`CodedForest`). `descend` then takes all rows of the block through every tree. A node costs two byte
comparisons and a selection, for LANES rows at once (one register with AVX-512, two with AVX2, four with NEON
or SSE). Every row visits all nodes of a tree instead of following its own path. So nothing waits for a branch
or for a node's address, and only the leaves' values are gathered.

The source has vectors of LANES; LLVM splits them to the width of the processor.
"""

from __future__ import annotations

import struct

from lungseg.learning.trees.forest import ZERO

ROWS = 512  # of a block: its codes (150 KiB for 300 columns) stay in the second-level cache
LANES = 64

_FLOATS, _BYTES, _COUNTS, _BITS = (f"<{LANES} x {element}>" for element in ("float", "i8", "i32", "i1"))
_GROUPS = range(ROWS // LANES)
_GATHERED = 8  # float64 leaves at once
_ZERO = f"0x{struct.pack('>d', ZERO).hex().upper()}"  # LLVM writes a float32 as the bits of a float64


def write_program() -> str:
    """Write the LLVM assembly of the function `forest`, which `LlvmForest` calls."""
    return _MAIN + _write_code() + _write_descend()


def _splat(name: str, element: str, lanes: int, value: str) -> str:
    """Write instructions for a vector %name with `value` in each lane."""
    vector = f"<{lanes} x {element}>"
    return f"""
  %{name}.lane = insertelement {vector} poison, {element} {value}, i32 0
  %{name} = shufflevector {vector} %{name}.lane, {vector} poison, <{lanes} x i32> zeroinitializer"""


def _repeat(element: str, value: str, lanes: int) -> str:
    """Write a constant vector with `value` in each lane."""
    return f"<{', '.join([f'{element} {value}'] * lanes)}>"


def _load_fields(row: str, table: str, index: str, *fields: str) -> str:
    """Write instructions that load the first fields of a row of a table of four 32-bit integers."""
    lines = [f"  %{row}.p = getelementptr {{i32, i32, i32, i32}}, ptr {table}, i64 {index}"]
    for place, field in enumerate(fields):
        lines.append(f"  %{field}.p = getelementptr i32, ptr %{row}.p, i64 {place}")
        lines.append(f"  %{field} = load i32, ptr %{field}.p")
    return "\n".join(lines)


# `x` points to the first column of the block's first row. Strides count elements, so rows may lie anywhere.
_MAIN = f"""
declare i64 @llvm.ctpop.i64(i64)
declare {_FLOATS} @llvm.fabs.v{LANES}f32({_FLOATS})
declare float @llvm.vector.reduce.fmax.v{LANES}f32({_FLOATS})
declare float @llvm.vector.reduce.fmin.v{LANES}f32({_FLOATS})
declare <{_GATHERED} x double> @llvm.masked.gather.v{_GATHERED}f64.v{_GATHERED}p0(
  <{_GATHERED} x ptr>, i32, <{_GATHERED} x i1>, <{_GATHERED} x double>)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define void @forest(ptr %x, i64 %row_stride, i64 %column_stride, i64 %blocks,
    ptr %columns, i64 %column_count, ptr %thresholds, i32 %one,
    ptr %nodes, ptr %trees, i64 %tree_count, ptr %leaves, ptr %codes, ptr %scores) {{
entry:
  br label %block
block:
  %b = phi i64 [0, %entry], [%b.next, %block]
  %row = mul i64 %b, {ROWS}
  %x.offset = mul i64 %row, %row_stride
  %x.block = getelementptr float, ptr %x, i64 %x.offset
  %scores.block = getelementptr double, ptr %scores, i64 %row
  call void @llvm.memset.p0.i64(ptr %scores.block, i8 0, i64 {ROWS * 8}, i1 false)
  call void @code(ptr %x.block, i64 %row_stride, i64 %column_stride, ptr %columns, i64 %column_count,
    ptr %thresholds, i32 %one, ptr %codes)
  call void @descend(ptr %codes, ptr %nodes, ptr %trees, i64 %tree_count, ptr %leaves, ptr %scores.block)
  %b.next = add i64 %b, 1
  %b.more = icmp slt i64 %b.next, %blocks
  br i1 %b.more, label %block, label %done
done:
  ret void
}}
"""


def _write_code() -> str:
    """Write `code`: the codes of a block, column after column, into `codes` (coded columns x ROWS).

    Thresholds below the least of LANES values count for all of them, and those above the greatest for none.
    Only the others are compared with each value, so neighbouring pixels that are similar cost less. `one` is
    1, but LLVM doesn't know that: it then adds it under a mask, which is one instruction less than its own
    way to count a comparison. Each column's thresholds are padded to a multiple of LANES with infinity.
    """
    return f"""
define internal void @code(ptr noalias %x, i64 %row_stride, i64 %column_stride, ptr noalias %columns,
    i64 %column_count, ptr noalias %thresholds, i32 %one, ptr noalias %codes) {{
entry:
  %buffer = alloca [{ROWS} x float], align 64{_splat("ones", "i32", LANES, "%one")}
  %contiguous = icmp eq i64 %row_stride, 1
  br label %column
column:
  %k = phi i64 [0, %entry], [%k.next, %column.end]
{_load_fields("entry", "%columns", "%k", "index32", "start32", "stop32")}
  %index = zext i32 %index32 to i64
  %start = zext i32 %start32 to i64
  %stop = zext i32 %stop32 to i64
  %offset = mul i64 %index, %column_stride
  %values = getelementptr float, ptr %x, i64 %offset
  %to.offset = mul i64 %k, {ROWS}
  %to = getelementptr i8, ptr %codes, i64 %to.offset
  br i1 %contiguous, label %lanes, label %copy
copy:
  %c = phi i64 [0, %column], [%c.next, %copy]
  %c.offset = mul i64 %c, %row_stride
  %c.from = getelementptr float, ptr %values, i64 %c.offset
  %c.value = load float, ptr %c.from
  %c.to = getelementptr float, ptr %buffer, i64 %c
  store float %c.value, ptr %c.to
  %c.next = add i64 %c, 1
  %c.more = icmp slt i64 %c.next, {ROWS}
  br i1 %c.more, label %copy, label %lanes
lanes:
  %from = phi ptr [%values, %column], [%buffer, %copy]
  br label %rows
rows:
  %r = phi i64 [0, %lanes], [%r.next, %rows.end]
  %value.p = getelementptr float, ptr %from, i64 %r
  %loaded = load {_FLOATS}, ptr %value.p, align 4
  %size = call {_FLOATS} @llvm.fabs.v{LANES}f32({_FLOATS} %loaded)
  %kept = fcmp ogt {_FLOATS} %size, {_repeat("float", _ZERO, LANES)}
  %value = select {_BITS} %kept, {_FLOATS} %loaded, {_FLOATS} zeroinitializer
  %least = call nnan float @llvm.vector.reduce.fmin.v{LANES}f32({_FLOATS} %value)
  %most = call nnan float @llvm.vector.reduce.fmax.v{LANES}f32({_FLOATS} %value)\
{_splat("leasts", "float", LANES, "%least")}{_splat("mosts", "float", LANES, "%most")}
  br label %range
range:
  %g = phi i64 [%start, %rows], [%g.next, %range]
  %low = phi i64 [%start, %rows], [%low.next, %range]
  %high = phi i64 [%start, %rows], [%high.next, %range]
  %group.p = getelementptr float, ptr %thresholds, i64 %g
  %group = load {_FLOATS}, ptr %group.p, align 4
  %low.lanes = fcmp ogt {_FLOATS} %leasts, %group
  %low.bits = bitcast {_BITS} %low.lanes to i64
  %low.count = call i64 @llvm.ctpop.i64(i64 %low.bits)
  %low.next = add i64 %low, %low.count
  %high.lanes = fcmp ogt {_FLOATS} %mosts, %group
  %high.bits = bitcast {_BITS} %high.lanes to i64
  %high.count = call i64 @llvm.ctpop.i64(i64 %high.bits)
  %high.next = add i64 %high, %high.count
  %g.next = add i64 %g, {LANES}
  %g.more = icmp slt i64 %g.next, %stop
  br i1 %g.more, label %range, label %ranged
ranged:
  %below = sub i64 %low.next, %start
  %below32 = trunc i64 %below to i32{_splat("belows", "i32", LANES, "%below32")}
  %undecided = icmp slt i64 %low.next, %high.next
  br i1 %undecided, label %count, label %rows.end
count:
  %t = phi i64 [%low.next, %ranged], [%t.next, %count]
  %sum = phi {_COUNTS} [%belows, %ranged], [%sum.next, %count]
  %threshold.p = getelementptr float, ptr %thresholds, i64 %t
  %threshold = load float, ptr %threshold.p{_splat("limit", "float", LANES, "%threshold")}
  %above = fcmp ogt {_FLOATS} %value, %limit
  %sum.plus = add {_COUNTS} %sum, %ones
  %sum.next = select {_BITS} %above, {_COUNTS} %sum.plus, {_COUNTS} %sum
  %t.next = add i64 %t, 1
  %t.more = icmp slt i64 %t.next, %high.next
  br i1 %t.more, label %count, label %rows.end
rows.end:
  %total = phi {_COUNTS} [%belows, %ranged], [%sum.next, %count]
  %bytes = trunc {_COUNTS} %total to {_BYTES}
  %bytes.p = getelementptr i8, ptr %to, i64 %r
  store {_BYTES} %bytes, ptr %bytes.p, align {LANES}
  %r.next = add i64 %r, {LANES}
  %r.more = icmp slt i64 %r.next, {ROWS}
  br i1 %r.more, label %rows, label %column.end
column.end:
  %k.next = add i64 %k, 1
  %k.more = icmp slt i64 %k.next, %column_count
  br i1 %k.more, label %column, label %done
done:
  ret void
}}
"""


def _write_descend() -> str:
    """Write `descend`: all rows of a block through all trees, leaves added in the trees' order in float64.

    A node is {offset of its column's codes, code, here, right}. The last three are bytes, each written four
    times, because a processor copies 32 bits from memory to all lanes faster than 8 bits.
    """
    starts = "".join(
        f"\n  %leaf{g} = phi {_BYTES} [zeroinitializer, %tree], [%leaf{g}.next, %node]" for g in _GROUPS
    )
    return f"""
define internal void @descend(ptr noalias %codes, ptr noalias %nodes, ptr noalias %trees, i64 %tree_count,
    ptr noalias %leaves, ptr noalias %scores) {{
entry:
  br label %tree
tree:
  %t = phi i64 [0, %entry], [%t.next, %tree.end]
{_load_fields("tree", "%trees", "%t", "first", "stop", "leaf.first")}
  %tree.leaves = getelementptr double, ptr %leaves, i32 %leaf.first
  br label %node
node:
  %i = phi i32 [%first, %tree], [%i.next, %node]{starts}
  %node.p = getelementptr {{i32, i32, i32, i32}}, ptr %nodes, i32 %i
  %offset = load i32, ptr %node.p
  %column = getelementptr i8, ptr %codes, i32 %offset\
{_load_node_byte("limit", 1)}{_load_node_byte("here", 2)}{_load_node_byte("right", 3)}\
{"".join(map(_move_rows, _GROUPS))}
  %i.next = add i32 %i, 1
  %i.more = icmp slt i32 %i.next, %stop
  br i1 %i.more, label %node, label %tree.end
tree.end:{"".join(_add_leaves(g, lane) for g in _GROUPS for lane in range(0, LANES, _GATHERED))}
  %t.next = add i64 %t, 1
  %t.more = icmp slt i64 %t.next, %tree_count
  br i1 %t.more, label %tree, label %done
done:
  ret void
}}
"""


def _load_node_byte(name: str, place: int) -> str:
    """Write instructions that load a byte of the node into each lane of %name."""
    words = LANES // 4
    return f"""
  %{name}.p = getelementptr i32, ptr %node.p, i64 {place}
  %{name}.word = load i32, ptr %{name}.p{_splat(f"{name}.words", "i32", words, f"%{name}.word")}
  %{name} = bitcast <{words} x i32> %{name}.words to {_BYTES}"""


def _move_rows(group: int) -> str:
    """Write instructions that move the rows of a group that are at the node and go right."""
    g = group
    return f"""
  %code{g}.p = getelementptr i8, ptr %column, i64 {g * LANES}
  %code{g} = load {_BYTES}, ptr %code{g}.p, align {LANES}
  %at{g} = icmp eq {_BYTES} %leaf{g}, %here
  %above{g} = icmp ugt {_BYTES} %code{g}, %limit
  %moves{g} = and {_BITS} %at{g}, %above{g}
  %leaf{g}.next = select {_BITS} %moves{g}, {_BYTES} %right, {_BYTES} %leaf{g}"""


def _add_leaves(group: int, lane: int) -> str:
    """Write instructions that add the leaves of some rows of a group, from `lane` on, to their scores."""
    n, name = _GATHERED, f"{group}.{lane}"
    lanes = ", ".join(f"i32 {lane + k}" for k in range(n))
    return f"""
  %some{name} = shufflevector {_BYTES} %leaf{group}.next, {_BYTES} poison, <{n} x i32> <{lanes}>
  %index{name} = zext <{n} x i8> %some{name} to <{n} x i32>
  %leaf{name}.p = getelementptr double, ptr %tree.leaves, <{n} x i32> %index{name}
  %add{name} = call <{n} x double> @llvm.masked.gather.v{n}f64.v{n}p0(
    <{n} x ptr> %leaf{name}.p, i32 8, <{n} x i1> {_repeat("i1", "true", n)}, <{n} x double> poison)
  %score{name}.p = getelementptr double, ptr %scores, i64 {group * LANES + lane}
  %score{name} = load <{n} x double>, ptr %score{name}.p, align 8
  %sum{name} = fadd <{n} x double> %score{name}, %add{name}
  store <{n} x double> %sum{name}, ptr %score{name}.p, align 8"""
