#!/usr/bin/env bash
# Run every linter over what git tracks or will (new files too), and say at the end which found fault.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH

failed=()

# lint NAME COMMAND...
lint() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf '%-24s ok\n' "$name"
  else
    printf '%-24s FAILED\n%s\n' "$name" "$output"
    failed+=("$name")
  fi
}

# files PATTERN...: those that are there, one a line.
files() { git ls-files --cached --others --exclude-standard --deduplicate -- "$@" | while read -r f; do [[ -f $f ]] && echo "$f"; done; }

mapfile -t python < <(files '*.py')
mapfile -t shell < <(files | xargs grep --files-with-matches --max-count=1 --extended-regexp \
  '^#!(/usr)?/bin/(env )?(ba)?sh' -- | grep --invert-match '\.j2$')

lint "ruff check" ruff check .
lint "ruff format" ruff format --check .
lint "mypy --strict" mypy "${python[@]}"
lint "import-linter" lint-imports
lint "yamllint" yamllint --strict .
lint "ansible-lint" ansible-lint --profile production --offline -q --strict
lint "shellcheck" shellcheck "${shell[@]}"
lint "roles' READMEs" scripts/role_readme.py --check

if ((${#failed[@]})); then
  echo "lint: ${#failed[@]} of 8 failed: ${failed[*]}" >&2
  exit 1
fi
