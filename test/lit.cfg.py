# -*- Python -*-
#
# Run with `ninja check-kvrm`, or `lit BUILD/test [--filter REGEX]`. With
# `--param tool=plugin` (BUILD/test/plugin) `kvrm-opt` stands for the stock
# mlir-opt with the plugin loaded.

import os
import subprocess

import lit.formats
import lit.util

plugin_run = config.kvrm_tool == "plugin"

config.name = "kvrm-plugin" if plugin_run else "kvrm"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.test_source_root = os.path.dirname(__file__)
config.excludes = ["unit", "reference", "Inputs", "CMakeLists.txt"]
if plugin_run:
    # Nothing here runs kvrm-opt, so that a second run would be the first again.
    config.excludes += ["Docs", "EndToEnd", "Tools"]

tools = config.kvrm_tools_dir
llvm = config.llvm_tools_dir
config.environment["PATH"] = os.pathsep.join(
    [tools, llvm, config.environment.get("PATH", "")]
)
config.environment["FILECHECK_OPTS"] = "--enable-var-scope --dump-input-filter=error"
for name in (
    "KVRM_SMOLLM2_GGUF",
    "KVRM_GRAPHS",
    "ASAN_OPTIONS",
    "UBSAN_OPTIONS",
    "TSAN_OPTIONS",
):
    if name in os.environ:
        config.environment[name] = os.environ[name]


def program(directory, name):
    path = os.path.join(directory, name)
    return path if os.path.exists(path) else None


stock = program(llvm, "mlir-opt") or lit.util.which("mlir-opt-22")
# A sanitized plugin cannot be loaded into a host that is not.
has_plugin = (
    bool(stock)
    and os.path.exists(config.kvrm_plugin)
    and "address" not in config.kvrm_sanitize
    and "thread" not in config.kvrm_sanitize
)
with_plugin = "{} {} {} {}".format(
    config.kvrm_python or "python3",
    os.path.join(config.test_source_root, "plugin-opt.py"),
    stock,
    config.kvrm_plugin,
)

# Longest first: lit replaces them in this order.
config.substitutions += [
    ("%kvrm_plugin", config.kvrm_plugin),
    ("%kvrm_library", config.kvrm_library),
    ("%kvrm_src", config.kvrm_src_root),
    ("%kvrm_obj", config.kvrm_obj_root),
    ("%mlir-opt-22", stock or "mlir-opt-not-found"),
    ("%mlir-tblgen", os.path.join(llvm, "mlir-tblgen")),
    ("%mlir_includes", " ".join("-I" + d for d in config.mlir_tblgen_includes)),
    ("%python", config.kvrm_python or "python3"),
]
if plugin_run:
    # As a command only: at the start of a RUN line or after a pipe, `not` and
    # the like, never in the middle of a path.
    config.substitutions.append((r"(?<![\w./-])kvrm-opt(?![\w./-])", with_plugin))
    if not has_plugin:
        lit_config.note("no stock mlir-opt or no plugin: skipping the plugin run")
        config.unsupported = True

features = config.available_features
features.add("plugin-run" if plugin_run else "kvrm-opt-run")
if has_plugin:
    features.add("plugin")
for name in ("kvrmc", "kvrm-run", "kvrm-lsp-server", "kvrm-render-template"):
    if program(tools, name):
        features.add(name)
if os.path.exists(config.kvrm_library):
    features.add("kvrm-library")
if config.kvrm_has_serve:
    features.add("serve")
if config.kvrm_sanitize:
    features.add("sanitizer")
if os.path.isfile(os.environ.get("KVRM_SMOLLM2_GGUF", "")):
    features.add("smollm2")
# A folder of decode steps that other frontends exported.
if os.path.isdir(os.environ.get("KVRM_GRAPHS", "")):
    features.add("graphs")
for feature, module in (
    ("python-reference", "numpy"),
    ("jinja2", "jinja2"),
    # Gigabytes, which test/requirements.txt has not.
    ("torch-mlir", "torch_mlir, transformers"),
    ("openai", "openai"),
    ("selenium", "selenium"),
):
    try:
        subprocess.run(
            [config.kvrm_python or "python3", "-c", "import " + module],
            check=True,
            capture_output=True,
        )
        features.add(feature)
    except (OSError, subprocess.CalledProcessError):
        pass
if lit.util.which("chromium") and lit.util.which("chromedriver"):
    features.add("chromium")
