# What the load scripts share; they source it. A fresh engine of its own for each of them, in a folder that goes with it.
binary=${BINARIES:-$PWD/target/release}
folder=$(mktemp -d)
engine=
watch=
on=() # what engine and load tool are started by, as `taskset`
end() {
    for process in $watch $engine; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT

start_engine() { # start_engine ARGUMENTS…: serves in $folder, with free ports
    cd "$folder"
    "${on[@]}" "$binary/cinnabar" --home var --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set pki=127.0.0.1:0 --console 127.0.0.1:0 "$@" serve --dev >out 2>err &
    engine=$!
    until grep -q '^cinnabar is ready' out; do
        kill -0 $engine 2>/dev/null || { cat err >&2; exit 4; }
        sleep 0.1
    done
}

stop_engine() {
    kill $engine
    wait $engine 2>/dev/null || true
    engine=
}

cinnabar() { "$binary/cinnabar" --home var "$@"; }

# A token, and a device `hsm` in cinnabar.toml: SoftHSM2 itself, or the test token in front of it, which waits as its script says.
make_device() { # make_device simulated|softhsm PROCESSES
    local module=$binary/libfaulty_token.so
    [[ $1 == simulated ]] || module=/usr/lib/softhsm/libsofthsm2.so
    [[ -e $module ]] || { echo "$module is not there; build the workspace, or apt install softhsm2" >&2; exit 4; }
    rm -rf "$folder/tokens" "$folder/var"
    mkdir "$folder/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\n' "$folder/tokens" >"$folder/softhsm2.conf"
    SOFTHSM2_CONF=$folder/softhsm2.conf softhsm2-util --init-token --free --label load --pin 87120936 --so-pin 12345678 >/dev/null
    echo 87120936 >"$folder/pin"
    echo ok >"$folder/script"
    cat >"$folder/cinnabar.toml" <<TOML
[[device]]
name = "hsm"
module = "$module"
token_label = "load"
pin_file = "$folder/pin"
processes = $2
environment = { SOFTHSM2_CONF = "$folder/softhsm2.conf", FAULTY_TOKEN_SCRIPT = "$folder/script" }
TOML
}

slow_device() { # slow_device MS: what a call takes from now on
    echo "slow $1" >"$folder/next" && mv "$folder/next" "$folder/script"
}

load() { # load ARGUMENTS…: the report goes into json; a promise that is not kept is for the report to say, a failure ends the script
    local status=0
    "${on[@]}" "$binary/cinnabar-load" run --progress none --json json "$@" >text 2>&1 || status=$?
    [[ $status == 0 || $status == 1 || $status == 5 ]] || { cat text >&2; exit 4; }
}

json() { python3 -c "import json, sys; r = json.load(open('json')); print($1)"; }
