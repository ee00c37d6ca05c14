# Go alone builds, tests and runs everything; make only gives the commands names.
.PHONY: build test lint bench bench-vs-torch golden generate clean

build: ## the program, for the CPU, into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ddpm ./cmd/ddpm

test: ## everything, without a GPU and without a download
	go test ./...

lint: ## formatting and vet, with the CPU build tag too
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags cpu ./...

bench: ## kernels, one line each
	go test -run '^$$' -bench . -benchtime 200ms ./internal/graph/cpu/...

bench-vs-torch: ## training and sampling steps beside PyTorch's (needs python3 with torch)
	scripts/bench-vs-torch.sh

generate: ## the assembly of the CPU kernels
	go generate ./...

golden: ## testdata/ from an independent PyTorch model (needs python3 with torch and numpy)
	cd scripts/reference && python3 golden.py ../../testdata && python3 steps.py ../../testdata && python3 heads.py ../../testdata

clean:
	rm -rf bin
