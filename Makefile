# The two commands of the README.

.PHONY: demo test setup-demo setup-test

# Installs what is missing, builds, starts Dispatch, deploys a function and calls it.
demo: setup-demo
	@cargo build --release
	@scripts/demo target/release/dispatch

# Installs what the tests need and runs everything that must pass.
test: setup-test
	@cargo xtask ci

setup-demo:
	@scripts/setup demo

setup-test:
	@scripts/setup test
