# make run     install what is missing, build, start the engine with a development CA on loopback
# make test    install what is missing, then format, lints and all tests
# make bench   criterion benches of the parts         make load    end-to-end load on this machine
# make crash   the kill test with many rounds         make chaos   sick devices under load, for SECONDS
# make soak    a million steps of the ledger against its model, then SOAK (20m) at 60 % load: memory, drift
# make overload   devices of known capacity, offered half to ten times of it: a table and a picture
# make fairness   one tenant at ten times its share beside nine at half of theirs
# make peers   OpenBao, certomancer, SoftHSM2, p11-kit and openssl with the same work: a table
# make profile a flame graph of the engine under load, and microseconds by thread and task
# make bench-pki   time stamps and OCSP answers over HTTP, a million certificates
# make bench-documents   PDFs and OFDs sealed a second beside pyHanko, and memory for 100 MB
# make fuzz    every parser against libFuzzer, SECONDS_EACH (60) each
# make bench-devices   devices through the pool and around it, wrapped keys     make clean   remove what was built

CARGO ?= cargo
VENV := target/venv
HOME_FOLDER ?= var
ROUNDS ?= 200
SECONDS ?= 600
KEYS ?= 1000000
CERTIFICATES ?= 1000000
STEPS ?= 1000000
SOAK ?= 20m

.PHONY: run build test check crash chaos soak bench bench-pki bench-devices bench-documents fuzz load overload fairness peers profile deps test-deps clean

run: deps
	$(CARGO) build --release --locked -p engine
	CINNABAR_CRYPTO_MB="$$(scripts/crypto-mb.sh target/crypto-mb)" target/release/cinnabar --home $(HOME_FOLDER) serve --dev

build: deps
	$(CARGO) build --release --locked --workspace

test: test-deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) build --workspace --locked
	TEST_CRYPTO_MB="$$(PYTHON=$(VENV)/bin/python scripts/crypto-mb.sh target/crypto-mb)" \
	TEST_PYTHON=$(abspath $(VENV))/bin/python $(CARGO) test --workspace --locked

crash: test-deps
	$(CARGO) build --workspace --locked
	TEST_CRASH_ROUNDS=$(ROUNDS) TEST_PREPAID_UNITS=100000 \
	$(CARGO) test --locked -p engine --test it -- crash:: a_balance_drained no_serial_is_used_twice no_token_that_an_app_has --nocapture

chaos: test-deps
	$(CARGO) build --workspace --locked
	TEST_CHAOS_SECONDS=$(SECONDS) $(CARGO) test --locked -p engine --test it -- chaos:: --nocapture

soak: build test-deps
	TEST_LEDGER_STEPS=$(STEPS) $(CARGO) test --locked -p store --lib -- ledger::model
	scripts/soak.sh $(SOAK)

bench: deps
	$(CARGO) bench --locked -p benches

# Sixteen connections, client and server on this machine; then an authority with CERTIFICATES certificates.
bench-pki: build
	scripts/bench-pki.sh
	BENCH_CERTIFICATES=$(CERTIFICATES) BENCH_REVOKED=50000 $(CARGO) bench --locked -p benches --bench million_certificates

# SoftHSM2 through the pool, directly, and through p11-kit server; then a million wrapped keys.
bench-devices: deps
	scripts/install.sh bench
	$(CARGO) bench --locked -p hsm-pool --bench devices
	$(CARGO) build --release --locked -p hsm-pool
	BENCH_KEYS=$(KEYS) $(CARGO) bench --locked -p benches --bench wrapped_keys

bench-documents: test-deps
	PYTHON=$(VENV)/bin/python scripts/bench-documents.sh

fuzz: deps
	scripts/fuzz.sh

load: build
	scripts/load.sh

# A quarter of an hour, six runs for each of two devices; SECONDS_EACH=10 takes three minutes.
overload: build test-deps
	scripts/overload.sh

profile: build
	scripts/profile.sh

# Half an hour; ROUNDS=1 SECONDS_EACH=2 takes three minutes.
peers: build test-deps
	scripts/peers.sh

fairness: build test-deps
	scripts/fairness.sh

# What building and running need: a C compiler for aws-lc and SQLite.
deps:
	scripts/install.sh build

# What testing needs besides: a PKCS#11 token, OpenSSL, and strangers from PyPI.
test-deps:
	scripts/install.sh test $(VENV)

clean:
	$(CARGO) clean
