#!/usr/bin/env python3
"""Paged decode attention of FlashInfer, beside kvrm's where its figures are given.

Every row is one call over a batch of given lengths: fp16, physical pages in random
order. CUDA graphs replay launches that rotate over KV sets too large for the L2
cache; reported is the median over replays of a graph's time per launch. Only run()
is in that time: the host's time in plan() is reported apart. Of FlashInfer every
variant runs, and its best one counts, for each row apart:

  fa2, fa3, xqa   the kernels, where the version has them (xqa needs no plan(); fa3 is
                  for prefill, and runs only if --backends names it)
  tc              fa2 with use_tensor_cores
  NHD, HND        the layout of the KV cache
  once            planned once without use_cuda_graph, then captured: the smallest
                  launch for these lengths, which no later plan() could reuse
  pdl             enable_pdl, where run() has it: launches overlap

Serving is whole steps by the wall clock: all lengths grow by one token, plan(), run()
of one layer, and a wait for the stream; then the same steps with one wait at their
end. Page tables of all steps are on the GPU before the first.

Of kvrm's JSON it reads "rows" and "serving": of each entry "name", "lengths", "heads",
"kv_heads", "head_dim" and "page", of rows "best_us", "policy_us", "floor_us" and
"pdl", of servings "steps" and "step_us".

Every version of FlashInfer runs in its own process, from its own folder. Without
--build it runs with FLASHINFER_DISABLE_JIT: a module not built before is reported.

Needs PyTorch and a GPU.
"""

import argparse
import functools
import inspect
import itertools
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from common import machine, progress, run

BUILTIN = {1: (2048, 8192, 32768, 65536), 4: (2048, 8192, 32768), 8: (2048, 8192, 32768)}
BUILTIN |= {32: (2048, 8192), 128: (2048, 8192)}
# Other shapes: query heads per KV head, head_dim.
SHAPES = ((1, 128), (3, 128), (8, 128), (4, 64))
SHAPE_LENGTHS = ((1, 8192), (8, 8192))

SET_BYTES = 200e6
GRAPH_BYTES = 1.6e9
DEFAULTS = {"heads": 32, "kv_heads": 8, "head_dim": 128, "page": 16}
CHECK = {"name": "check", "lengths": [1, 16, 301, 2048], **DEFAULTS}
TOLERANCE = 3e-3
WRONG = "wrong output"

# A worker's exit after an error that leaves its GPU context useless.
LOST = 7


def builtin_rows():
    return [
        {"name": f"B{batch}x{length}", "lengths": [length] * batch, **DEFAULTS}
        for batch, lengths in BUILTIN.items()
        for length in lengths
    ]


def builtin_serving(steps):
    generator = random.Random(1)
    rows = []
    for slots in (4, 16):
        short = [generator.randint(256, 2048) for _ in range(slots - slots // 4)]
        long = [generator.randint(16384, 32768) for _ in range(slots // 4)]
        name = f"bimodal-B{slots}"
        rows.append({"name": name, "slots": slots, "lengths": short + long, "steps": steps})
    return rows


def shape_rows():
    return [
        {
            "name": f"G{group} d{head_dim} B{batch}x{length}",
            "lengths": [length] * batch,
            **DEFAULTS,
            "heads": 8 * group,
            "head_dim": head_dim,
        }
        for group, head_dim in SHAPES
        for batch, length in SHAPE_LENGTHS
    ]


def signature(row):
    """What decides a row's figures: rows of one signature are measured once."""
    shape = [row[key] for key in DEFAULTS]
    return json.dumps([row["lengths"], *shape, row.get("steps")])


def token_bytes(row):
    return row["kv_heads"] * row["head_dim"] * 2 * 2


def pages_of(row, growth=0):
    return sum(-(-(length + growth) // row["page"]) for length in row["lengths"])


def plan_sets(row, max_bytes):
    """KV sets and launches a graph."""
    size = pages_of(row) * row["page"] * token_bytes(row)
    sets = min(max(2, -(-int(SET_BYTES) // size)), 512)
    sets = max(1, min(sets, int(max_bytes // size)))
    launches = 32 if size * 32 <= GRAPH_BYTES else max(4, int(GRAPH_BYTES // size))
    return sets, sets * -(-launches // sets)


def note_loss(state, error):
    """What was under way took its process along: it failed, and its kind may again."""
    key, kind = state["current"]
    state["results"][key] = {"error": error}
    state["lost"] += [kind] * (2 if key.startswith(signature(CHECK)) else 1)
    state["current"] = None


# --- One version of FlashInfer, in a process of its own ---


class Worker:
    def __init__(self, work, state_path):
        import torch

        self.torch = torch
        self.work = work
        self.state_path = state_path
        with open(state_path) as file:
            self.state = json.load(file)
        begin = time.perf_counter()
        import flashinfer

        self.flashinfer = flashinfer
        self.state["version"] = flashinfer.__version__
        self.state["device"] = torch.cuda.get_device_name()
        self.state["torch"] = torch.__version__
        decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper
        self.has_pdl = "enable_pdl" in inspect.signature(decode.run).parameters
        self.has_backend = "backend" in inspect.signature(decode.__init__).parameters
        self.xqa = getattr(flashinfer.decode, "xqa_batch_decode_with_kv_cache", None)
        self.fast_plan = getattr(flashinfer, "fast_decode_plan", None)
        progress(f"  FlashInfer {flashinfer.__version__}, {time.perf_counter() - begin:.1f} s")

        self.workspace = self.zeros(512 << 20, torch.uint8)
        self.xqa_workspace = self.zeros(256 << 20, torch.uint8)
        self.stream = torch.cuda.Stream()
        torch.manual_seed(1)
        rows = [CHECK, *work["rows"], *work["shapes"]]
        pages = [plan_sets(row, work["max_bytes"])[0] * pages_of(row) for row in rows]
        sizes = [n * row["page"] * token_bytes(row) // 4 for n, row in zip(pages, rows)]
        for row in work["serving"]:
            sizes.append(pages_of(row, row["steps"]) * row["page"] * token_bytes(row) // 4)
        # All KV there is, filled once; rows take views.
        self.keys = torch.empty(max(sizes), dtype=torch.float16, device="cuda").normal_()
        self.values = torch.empty(max(sizes), dtype=torch.float16, device="cuda").normal_()

    def zeros(self, size, dtype):
        return self.torch.zeros(size, dtype=dtype, device="cuda")

    def save(self):
        part = self.state_path + ".part"
        with open(part, "w") as file:
            json.dump(self.state, file)
        os.replace(part, self.state_path)

    def attempt(self, key, kind, measure):
        """Measures once, whatever process this is, and keeps what went wrong."""
        results = self.state["results"]
        if key in results:
            return
        if self.state["lost"].count(kind) > 1:
            results[key] = {"error": "left out: it ended the process before"}
            return
        self.state["current"] = key, kind
        self.save()

        def lose(error):
            progress(f"  {key}: {error}")
            note_loss(self.state, error)
            self.save()
            os._exit(LOST)

        def give_up():
            lose(f"not done in {self.work['patience']:.0f} s")

        timer = threading.Timer(self.work["patience"], give_up)
        timer.daemon = True
        timer.start()
        try:
            results[key] = measure()
        except Exception as error:  # noqa: BLE001 -- whatever a version raises is its answer
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            results[key] = {"error": text}
        try:
            self.torch.cuda.synchronize()
            timer.cancel()
        except Exception as error:  # noqa: BLE001
            lose(f"the GPU context is lost: {str(error).splitlines()[0]}")
        self.state["current"] = None
        self.save()

    # Inputs

    def shared(self, row, pages, sets=1):
        """KV sets of a row in both layouts, as views of the one allocation."""
        shape = (row["page"], row["kv_heads"], row["head_dim"])
        size = sets * pages * shape[0] * shape[1] * shape[2]
        caches = {}
        for layout in self.work["layouts"]:
            inner = shape if layout == "NHD" else (shape[1], shape[0], shape[2])
            k = self.keys[:size].view(sets, pages, *inner)
            v = self.values[:size].view(sets, pages, *inner)
            caches[layout] = [(k[i], v[i]) for i in range(sets)]
        return caches

    def query(self, row):
        shape = (len(row["lengths"]), row["heads"], row["head_dim"])
        q = self.torch.randn(shape, device="cuda").half()
        return q, self.torch.empty_like(q)

    def tables(self, row, growth=0):
        """Page numbers of each slot, in random order over all slots."""
        counts = [-(-(length + growth) // row["page"]) for length in row["lengths"]]
        order = self.torch.randperm(sum(counts)).int()
        return list(order.split(counts))

    def csr(self, row, tables, lengths):
        torch = self.torch
        counts = [-(-length // row["page"]) for length in lengths]
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        indptr = torch.tensor(starts, dtype=torch.int32)
        last = torch.tensor([(n - 1) % row["page"] + 1 for n in lengths], dtype=torch.int32)
        indices = torch.cat([table[:count] for table, count in zip(tables, counts)])
        return indptr, indices.cuda(), last

    def block_table(self, tables):
        torch = self.torch
        return torch.nn.utils.rnn.pad_sequence(tables, batch_first=True).contiguous().cuda()

    def wrapper(self, row, layout, backend, cores, graph, capacity):
        """capacity: of its page table, for use_cuda_graph."""
        torch = self.torch
        batch = len(row["lengths"])
        extra = {}
        if graph:
            extra = {
                "use_cuda_graph": True,
                "paged_kv_indptr_buffer": self.zeros(batch + 1, torch.int32),
                "paged_kv_indices_buffer": self.zeros(capacity, torch.int32),
                "paged_kv_last_page_len_buffer": self.zeros(batch, torch.int32),
            }
        if self.has_backend:
            extra["backend"] = backend
        make = self.flashinfer.BatchDecodeWithPagedKVCacheWrapper
        return make(self.workspace, layout, use_tensor_cores=cores, **extra)

    def plan(self, wrapper, row, indptr, indices, last):
        shape = (row["heads"], row["kv_heads"], row["head_dim"], row["page"])
        dtype = self.torch.float16
        wrapper.plan(indptr, indices, last, *shape, q_data_type=dtype, kv_data_type=dtype)

    def run_xqa(self, row, q, cache, table, lens, out, layout, pdl=None):
        self.xqa(
            q, cache, self.xqa_workspace, table, lens, table.shape[1] * row["page"],
            bmm1_scale=row["head_dim"] ** -0.5, bmm2_scale=1.0, out=out,
            kv_layout=layout, enable_pdl=pdl,
        )  # fmt: skip

    def plans(self):
        """(name, backend, tensor cores, use_cuda_graph) of what has a plan()."""
        kinds = [("fa2", "fa2", False), ("fa2 tc", "fa2", True)]
        if self.has_backend:
            kinds.append(("fa3", "fa3", True))
        kinds = [kind for kind in kinds if kind[1] in self.work["backends"]]
        for name, backend, cores in kinds:
            for mode in self.work["plans"]:
                suffix = " once" if mode == "once" else ""
                yield name + suffix, backend, cores, mode == "graph"

    def use_xqa(self):
        return self.xqa is not None and "xqa" in self.work["backends"]

    # Measuring

    def capture(self, calls):
        torch = self.torch
        graph = torch.cuda.CUDAGraph()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            calls[0]()
            self.stream.synchronize()
            graph.capture_begin()
            try:
                for call in calls:
                    call()
            except BaseException:
                try:
                    graph.capture_end()
                except RuntimeError:
                    pass
                raise
            graph.capture_end()
        return graph

    def replay_us(self, graph, launches):
        torch = self.torch
        with torch.cuda.stream(self.stream):
            for _ in range(2):
                graph.replay()
            marks = [torch.cuda.Event(enable_timing=True)]
            marks[0].record()
            for _ in range(self.work["replays"]):
                graph.replay()
                marks.append(torch.cuda.Event(enable_timing=True))
                marks[-1].record()
            self.stream.synchronize()
        times = [1000 * a.elapsed_time(b) / launches for a, b in itertools.pairwise(marks)]
        return statistics.median(times)

    def plan_us(self, wrapper, row, arguments):
        times = []
        for _ in range(11):
            self.torch.cuda.synchronize()
            begin = time.perf_counter()
            self.plan(wrapper, row, *arguments)
            times.append(1e6 * (time.perf_counter() - begin))
        self.torch.cuda.synchronize()
        return statistics.median(times)

    def reference(self, row, q, cache, layout, tables, lengths):
        torch = self.torch
        rows = []
        for slot, (table, length) in enumerate(zip(tables, lengths)):
            used = table[: -(-length // row["page"])].long().cuda()
            parts = []
            for part in cache:
                part = part[used]
                if layout == "HND":
                    part = part.transpose(1, 2)
                part = part.reshape(-1, row["kv_heads"], row["head_dim"])[:length].float()
                parts.append(part.repeat_interleave(row["heads"] // row["kv_heads"], 1))
            scores = torch.einsum("hd,thd->ht", q[slot].float(), parts[0])
            weights = torch.softmax(scores * row["head_dim"] ** -0.5, -1)
            rows.append(torch.einsum("ht,thd->hd", weights, parts[1]))
        return torch.stack(rows)

    def error_of(self, out, wanted):
        """Largest error, relative where values are large."""
        difference = (out.float() - wanted).abs() / wanted.abs().clamp(min=1)
        worst = difference.max().item()
        if not worst <= TOLERANCE:
            raise RuntimeError(f"{WRONG}: off by {worst:.3g}")
        return worst

    def measure_row(self, row, check=False):
        key = signature(row)
        pages = pages_of(row)
        sets, launches = plan_sets(row, self.work["max_bytes"])
        if check:
            sets = launches = 1
        caches = self.shared(row, pages, sets)
        q, out = self.query(row)
        tables = self.tables(row)
        arguments = self.csr(row, tables, row["lengths"])
        choices = [False, True] if self.has_pdl else [None]

        def timed(calls, wanted):
            out.zero_()
            graph = self.capture(calls)
            if check:
                out.zero_()
                graph.replay()
                return {"error_max": self.error_of(out, wanted)}
            return {"us": self.replay_us(graph, launches), "sets": sets, "launches": launches}

        for layout, cache in caches.items():
            wanted = None
            if check:
                wanted = self.reference(row, q, cache[0], layout, tables, row["lengths"])
            for name, backend, cores, graph in self.plans():
                kind = name.removesuffix(" once")
                name += f" {layout}"
                ready = {}

                def prepare(layout=layout, backend=backend, cores=cores, graph=graph, ready=ready):
                    wrapper = self.wrapper(row, layout, backend, cores, graph, pages)
                    self.plan(wrapper, row, *arguments)
                    ready["wrapper"] = wrapper
                    ready["plan_us"] = 0 if check else self.plan_us(wrapper, row, arguments)

                for pdl in choices:
                    extra = {} if pdl is None else {"enable_pdl": pdl}

                    def call(cache=cache, extra=extra, ready=ready, prepare=prepare):
                        if not ready:
                            prepare()
                        wrapper = ready["wrapper"]
                        calls = [
                            lambda i=i: wrapper.run(q, cache[i % sets], out=out, **extra)
                            for i in range(launches)
                        ]
                        return timed(calls, wanted) | {"plan_us": ready["plan_us"]}

                    self.attempt(f"{key} | {name}{' pdl' if pdl else ''}", kind, call)
            if not self.use_xqa():
                continue
            table = self.block_table(tables)
            lens = self.torch.tensor(row["lengths"], dtype=self.torch.int32, device="cuda")
            for pdl in (False, True):

                def call(layout=layout, cache=cache, table=table, lens=lens, pdl=pdl):
                    calls = [
                        lambda i=i: self.run_xqa(
                            row, q, cache[i % sets], table, lens, out, layout, pdl
                        )
                        for i in range(launches)
                    ]
                    return timed(calls, wanted) | {"plan_us": 0}

                self.attempt(f"{key} | xqa {layout}{' pdl' if pdl else ''}", "xqa", call)

    def steps_us(self, steps, step):
        """Microseconds of each step with a wait after it, and of one without."""
        torch = self.torch
        times = []
        with torch.cuda.stream(self.stream):
            for i in range(min(3, steps)):
                step(i)
                self.stream.synchronize()
            for i in range(steps):
                begin = time.perf_counter()
                step(i)
                self.stream.synchronize()
                times.append(1e6 * (time.perf_counter() - begin))
            begin = time.perf_counter()
            for i in range(steps):
                step(i)
            self.stream.synchronize()
            unsynced = 1e6 * (time.perf_counter() - begin) / steps
        return {
            "us": statistics.median(times),
            "mean_us": statistics.mean(times),
            "unsynced_us": unsynced,
        }

    def measure_serving(self, row):
        torch = self.torch
        key = "serving " + signature(row)
        steps = row["steps"]
        layout = self.work["layouts"][0]
        capacity = pages_of(row, steps)
        cache = self.shared(row, capacity)[layout][0]
        q, out = self.query(row)
        tables = self.tables(row, steps)
        lengths = [[length + i + 1 for length in row["lengths"]] for i in range(steps)]
        final = self.reference(row, q, cache, layout, tables, lengths[-1])
        batch = len(row["lengths"])
        plans = [self.csr(row, tables, current) for current in lengths]
        # What the host knows of a step lies in pinned memory, as copies of it should.
        pinned = torch.empty((3, steps, batch + 1), dtype=torch.int32, pin_memory=True)
        for i, (indptr, _, last) in enumerate(plans):
            pinned[0, i] = indptr
            pinned[1, i, :batch] = last
            pinned[2, i, :batch] = torch.tensor(lengths[i], dtype=torch.int32)
        plans = [
            (pinned[0, i], indices, pinned[1, i, :batch]) for i, (_, indices, _) in enumerate(plans)
        ]
        torch.cuda.synchronize()

        def finish(step):
            out.zero_()
            torch.cuda.synchronize()
            result = self.steps_us(steps, step)
            # The waits are what keeps a plan() off what an earlier run() still reads.
            with torch.cuda.stream(self.stream):
                step(steps - 1)
            torch.cuda.synchronize()
            return result | {"error_max": self.error_of(out, final), "steps": steps}

        def measure(backend, cores, mode):
            graphs = mode != "plan+run"
            wrapper = self.wrapper(row, layout, backend, cores, graphs, capacity)
            with torch.cuda.stream(self.stream):
                self.plan(wrapper, row, *plans[0])
            torch.cuda.synchronize()
            launch = lambda: wrapper.run(q, cache, out=out)
            if graphs:
                launch = self.capture([launch]).replay

            def step(i):
                if mode == "fast plan+graph":
                    indptr, indices, last = plans[i]
                    wrapper._paged_kv_indptr_buf.copy_(indptr, non_blocking=True)
                    wrapper._paged_kv_indices_buf[: len(indices)].copy_(indices)
                    wrapper._paged_kv_last_page_len_buf.copy_(last, non_blocking=True)
                    self.fast_plan(
                        wrapper, indptr, indices, last,
                        row["heads"], row["kv_heads"], row["head_dim"], row["page"],
                        q_data_type=torch.float16, global_override_indptr_cpu=indptr,
                    )  # fmt: skip
                else:
                    self.plan(wrapper, row, *plans[i])
                launch()

            return finish(step)

        modes = ["plan+run", "plan+graph"] + ["fast plan+graph"] * bool(self.fast_plan)
        names = {(name.removesuffix(" once"), b, c) for name, b, c, _ in self.plans()}
        for name, backend, cores in sorted(names):
            for mode in modes:
                call = functools.partial(measure, backend, cores, mode)
                self.attempt(f"{key} | {name} {mode}", name, call)
        if not self.use_xqa():
            return

        def measure_xqa(graphs):
            table = self.block_table(tables)
            lens = pinned[2, 0, :batch].cuda()
            launch = lambda: self.run_xqa(row, q, cache, table, lens, out, layout)
            if graphs:
                launch = self.capture([launch]).replay

            def step(i):
                lens.copy_(pinned[2, i, :batch], non_blocking=True)
                launch()

            return finish(step)

        for mode in ("run", "graph"):
            call = functools.partial(measure_xqa, mode == "graph")
            self.attempt(f"{key} | xqa {mode}", "xqa", call)

    def measure(self):
        self.measure_row(CHECK, check=True)
        for kind in ("rows", "serving", "shapes"):
            for row in self.work[kind]:
                begin = time.perf_counter()
                (self.measure_serving if kind == "serving" else self.measure_row)(row)
                progress(f"  {row['name']}: {time.perf_counter() - begin:.1f} s")
        self.state["finished"] = True
        self.save()


# --- What starts the versions and reports ---


def run_version(name, path, work, folder, args):
    """Runs a version until it ends; what kills its process is that variant's error."""
    state_path = os.path.join(folder, f"{name}.json")
    work_path = os.path.join(folder, "work.json")
    state = {"results": {}, "current": None, "lost": []}
    with open(state_path, "w") as file:
        json.dump(state, file)
    with open(work_path, "w") as file:
        json.dump(work, file)
    environment = os.environ.copy()
    if path:
        paths = [os.path.abspath(path), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if not args.build:
        environment["FLASHINFER_DISABLE_JIT"] = "1"
    command = [sys.executable, os.path.abspath(__file__), "--worker", work_path, state_path]
    deadline = time.monotonic() + args.timeout
    for _ in range(8):
        left = deadline - time.monotonic()
        try:
            code = subprocess.run(command, env=environment, timeout=max(1, left)).returncode
            reason = f"the process ended with {code}"
        except subprocess.TimeoutExpired:
            code, reason = None, "out of time"
        with open(state_path) as file:
            state = json.load(file)
        if state.get("finished"):
            break
        failed = state["current"]
        progress(f"{name}: {reason}" + (f" in {failed[0]}" if failed else ""))
        if failed:
            note_loss(state, reason)
            with open(state_path, "w") as file:
                json.dump(state, file)
        if code is None or (code != LOST and not failed):
            state["failed"] = reason
            break
    return state


def variants_of(state, key):
    prefix = f"{key} | "
    found = {
        name[len(prefix) :]: result
        for name, result in state["results"].items()
        if name.startswith(prefix)
    }
    check = f"{signature(CHECK)} | "
    for name in found:
        error = state["results"].get(check + name, {}).get("error", "")
        if error.startswith(WRONG):
            found[name] = {"error": error}
    return found


def best_of(variants):
    measured = {name: result["us"] for name, result in variants.items() if "us" in result}
    if not measured:
        return None
    name = min(measured, key=measured.get)
    return {"variant": name, **variants[name]}


def report_row(row, states, serving=False):
    key = ("serving " if serving else "") + signature(row)
    versions = {}
    for name, state in states.items():
        variants = variants_of(state, key)
        with_pdl = {n: r for n, r in variants.items() if n.endswith(" pdl")}
        without = {n: r for n, r in variants.items() if n not in with_pdl}
        versions[name] = {
            "best": best_of(without),
            "unsupported": {n: r["error"] for n, r in variants.items() if "error" in r},
            "variants": variants,
        }
        if not serving:
            versions[name]["best_pdl"] = best_of(with_pdl)
        else:
            waits = {n: r | {"us": r["unsynced_us"]} for n, r in without.items() if "us" in r}
            versions[name]["best_unsynced"] = best_of(waits)
    return {**row, "flashinfer": versions}


def cell(best):
    return f"{best['us']:.1f} {best['variant']}" if best else "-"


def figure(row, key):
    value = row.get(key)
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"


def print_table(title, head, rows):
    if not rows:
        return
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for line in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def print_report(report):
    names = list(report["versions"])
    given = any("best_us" in row or "policy_us" in row for row in report["rows"])
    head = ["µs a launch"]
    if given:
        head += ["floor", "kvrm best", "policy"]
    for name in names:
        head += [f"{name}", f"{name}, PDL", "plan"]
    for title, key in (("Rows", "rows"), ("Other shapes", "shapes")):
        lines = []
        for row in report[key]:
            line = [row["name"] + (" pdl" if row.get("pdl") else "")]
            if given:
                line += [figure(row, field) for field in ("floor_us", "best_us", "policy_us")]
            for name in names:
                version = row["flashinfer"][name]
                line += [cell(version["best"]), cell(version["best_pdl"])]
                line.append(f"{version['best']['plan_us']:.0f}" if version["best"] else "-")
            lines.append(line)
        print_table(title, head, lines)
    head = ["µs a step", "steps", "kvrm"]
    for name in names:
        head += [name, f"{name}, one wait"]
    lines = []
    for row in report["serving"]:
        line = [row["name"], str(row["steps"]), figure(row, "step_us")]
        for name in names:
            version = row["flashinfer"][name]
            line += [cell(version["best"]), cell(version["best_unsynced"])]
        lines.append(line)
    print_table("Serving", head, lines)
    for name, version in report["versions"].items():
        for text in version["problems"]:
            print(f"{name}: {text}")


def problems_of(state):
    """What failed, grouped by the message and by the variant without its row."""
    groups = {}
    for key, result in state["results"].items():
        if "error" in result:
            row, variant = key.rsplit(" | ", 1)
            groups.setdefault((variant, result["error"][:160]), set()).add(row)
    texts = [f"{variant}: {error} ({len(rows)} rows)" for (variant, error), rows in groups.items()]
    if "failed" in state:
        texts.append(state["failed"])
    return texts


def kvrm_figures(args):
    if args.kvrm:
        command = [args.kvrm, "bench", "attention", args.kernels, "--json"]
        progress("kvrm")
        return json.loads(run(*command, *shlex.split(args.kvrm_flags)))
    if args.input:
        with open(args.input) as file:
            return json.load(file)
    return {}


def usable(rows, kind):
    """Rows with every value filled in, as far as lengths are given."""
    kept = []
    for row in rows:
        if row.get("lengths"):
            kept.append({**DEFAULTS, **row})
        else:
            progress(f"{kind} {row.get('name')}: no lengths, left out")
    return kept


def distinct(rows):
    fields = ("name", "lengths", *DEFAULTS, "steps")
    found = {}
    for row in rows:
        found.setdefault(signature(row), {f: row[f] for f in fields if f in row})
    return list(found.values())


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", help="what `kvrm-run bench attention --json` wrote")
    parser.add_argument("--kvrm", help="or kvrm-run itself, to be run first")
    parser.add_argument("--kernels", help="its kernel set; with --kvrm")
    parser.add_argument("--kvrm-flags", default="", help="what else it is given")
    parser.add_argument(
        "--flashinfer", action="append", default=[], metavar="NAME=FOLDER",
        help="a version and the folder it is installed in; the one at hand if none is given",
    )  # fmt: skip
    parser.add_argument("--json", help="writes all figures here")
    parser.add_argument("--build", action="store_true", help="compile modules that are missing")
    parser.add_argument("--no-rows", action="store_true")
    parser.add_argument("--no-shapes", action="store_true")
    parser.add_argument("--no-serving", action="store_true")
    parser.add_argument("--only", help="rows and servings whose name contains this")
    parser.add_argument("--backends", default="fa2,xqa")
    parser.add_argument("--layouts", default="HND,NHD", help="serving takes the first")
    parser.add_argument("--plans", default="graph,once")
    parser.add_argument("--replays", type=int, default=30)
    parser.add_argument("--steps", type=int, help="of a serving; else its own or 100")
    parser.add_argument("--max-gb", type=float, default=40, help="of KV in all sets")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for a version")
    parser.add_argument("--patience", type=float, default=25, help="seconds for a variant")
    parser.add_argument("--dry-run", action="store_true", help="print what would be measured")
    args = parser.parse_args()
    if args.kvrm and not args.kernels:
        parser.error("--kvrm needs --kernels")
    return args


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--worker":
        with open(sys.argv[2]) as file:
            Worker(json.load(file), sys.argv[3]).measure()
        return
    args = parse()
    figures = kvrm_figures(args)
    rows = usable(figures.get("rows") or builtin_rows(), "row")
    shapes = usable(shape_rows(), "shape")
    serving = usable(figures.get("serving") or builtin_serving(args.steps or 100), "serving")
    rows, shapes = [] if args.no_rows else rows, [] if args.no_shapes else shapes
    serving = [] if args.no_serving else serving
    if args.only:
        rows, shapes, serving = (
            [row for row in part if args.only in row["name"]] for part in (rows, shapes, serving)
        )
    for row in serving:
        row["steps"] = args.steps or row.get("steps") or 100
    work = {
        "rows": distinct(rows),
        "shapes": distinct(shapes),
        "serving": distinct(serving),
        "layouts": args.layouts.split(","),
        "backends": args.backends.split(","),
        "plans": args.plans.split(","),
        "replays": args.replays,
        "max_bytes": args.max_gb * 1e9,
        "patience": args.patience,
    }
    if args.dry_run:
        for row in work["rows"] + work["shapes"]:
            sets, launches = plan_sets(row, work["max_bytes"])
            size = pages_of(row) * row["page"] * token_bytes(row)
            print(f"{row['name']}: {size / 1e6:.0f} MB, {sets} sets, {launches} launches")
        for row in work["serving"]:
            print(f"{row['name']}: {row['steps']} steps from {row['lengths']}")
        return

    states = {}
    with tempfile.TemporaryDirectory() as folder:
        for option in args.flashinfer or ["flashinfer="]:
            name, _, path = option.partition("=")
            progress(name)
            begin = time.monotonic()
            states[name] = run_version(name, path, work, folder, args)
            states[name]["seconds"] = time.monotonic() - begin
    report = {
        "device": next((s["device"] for s in states.values() if "device" in s), None),
        "kvrm_device": figures.get("device"),
        "machine": machine(),
        "replays": args.replays,
        "versions": {
            name: {
                "version": state.get("version"),
                "torch": state.get("torch"),
                "seconds": state["seconds"],
                "check": variants_of(state, signature(CHECK)),
                "problems": problems_of(state),
            }
            for name, state in states.items()
        },
        "rows": [report_row(row, states) for row in rows],
        "shapes": [report_row(row, states) for row in shapes],
        "serving": [report_row(row, states, serving=True) for row in serving],
    }
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    print_report(report)
    if not all(state.get("finished") for state in states.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
