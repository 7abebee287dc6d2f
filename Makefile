# What people run. Every target works on a machine that has Debian's build
# tools and Rust; nothing else is installed by hand.

CARGO ?= cargo
PROFILE ?= release
BIN := target/$(PROFILE)

.PHONY: help demo build shipped test check fmt clippy doc bench bench-peers bench-robustness fuzz clean \
	eif reproduce measurements vm-tools test-nitro test-confidential-space image test-tools aarch64 soak

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 26

build: shipped ## all binaries, the enclave twice: as it is shipped, and in simulation
	$(CARGO) build --release --locked --workspace --exclude sealfold-tests --exclude sealfold-faults --features sealfold-enclave/simulation

# The shipped enclave lacks the simulation, so it is built alone and kept in a
# folder of its own, where the build with the simulation does not overwrite it.
shipped: ## the enclave binary as it is shipped
	$(CARGO) build --release --locked -p sealfold-enclave
	@mkdir -p $(BIN)/shipped
	@cp $(BIN)/sealfold-enclave $(BIN)/shipped/sealfold-enclave

demo: build ## four hospitals' real data, a table and a report; PRIVATE=1: each patient hidden by noise
	$(BIN)/heart-disease demo $(if $(PRIVATE),--private) --out target/demo

test-tools: ## what the tests need besides Rust: valgrind, an independent reader of the log
	tests/tools.sh

test: test-tools build ## all tests, the ones through the real binaries included
	$(CARGO) test --release --locked --workspace --features sealfold-enclave/simulation

aarch64: ## the binaries compile for aarch64, and calculate the same there (in emulation)
	tests/aarch64.sh

# Each soak begins at another seed. SOAK="--count 5000" passes options on; --help
# lists them.
soak: ## schedules of faults until Ctrl-C; SEED=NUMBER: that one again, told step by step
	$(CARGO) run --quiet --release --locked -p sealfold-faults --bin soak -- $(if $(SEED),--seed $(SEED)) $(SOAK)

check: fmt clippy doc ## formatting, lints, documentation

fmt:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path image/builder/Cargo.toml --check

clippy:
	$(CARGO) clippy --release --locked --workspace --all-targets --all-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --all-features

bench: build ## folding at the limit: our figures beside the cipher's and memory's
	$(CARGO) bench --locked -p sealfold-tests --bench fold

bench-robustness: ## what is left of the example's AUC when hospitals are hostile, by rule
	$(CARGO) run --quiet --release --locked -p sealfold-heart-disease -- robustness

# PEERS="--rounds 3 --rules mean" passes options on; --help lists them.
bench-peers: ## aggregation in Flower, NVIDIA FLARE, numpy and TenSEAL beside ours
	tests/benches/peers/run.sh $(PEERS)

# The image. SIGN="certificate.pem key.pem" signs it.
eif: ## the enclave image file, target/eif/sealfold.eif, with its measurements
	image/build.sh $(if $(SIGN),--sign $(SIGN))

measurements: ## what a site's policy says to accept the image
	@test -f target/eif/sealfold.eif || $(MAKE) -s eif
	@$(CARGO) run --quiet --release --locked -p sealfold -- measure target/eif/sealfold.eif

reproduce: ## build the image twice, in two folders, and compare every part
	image/reproduce.sh

vm-tools: ## QEMU's nitro-enclave machine and its vsock, once, into a cache
	image/vm/tools.sh

test-nitro: build ## boot the image in a virtual machine and run rounds through it
	image/vm/test.sh

test-confidential-space: build ## run the OCI image without a network, with a launcher's double
	image/space.sh

image: ## the enclave as an OCI image, target/oci, for nitro-cli or Confidential Space
	image/oci.sh

FUZZ_SECONDS ?= 30
fuzz: ## fuzz every parser of foreign bytes, each for FUZZ_SECONDS
	$(CARGO) install --locked --quiet --root target/tools --version 0.13.2 cargo-fuzz
	for target in statements manifest document token policy door endpoint log; do \
		PATH="$(CURDIR)/target/tools/bin:$$PATH" $(CARGO) +nightly fuzz run $$target \
			-- -max_total_time=$(FUZZ_SECONDS) -max_len=20000 || exit 1; \
	done

clean:
	$(CARGO) clean
