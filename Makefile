# Go alone builds, tests and runs everything; make only gives the commands names.
.PHONY: build test lint bench bench-vs-torch golden generate clean
.PHONY: cuda cuda-env standin standin-env test-cuda test-standin mutations door kernels kernels-check ptxcheck gpu-bundle gpu-check image

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
	go generate ./internal/graph/cpu/...

golden: ## testdata/ from an independent PyTorch model (needs python3 with torch and numpy)
	cd scripts/reference && python3 golden.py ../../testdata && python3 steps.py ../../testdata && python3 heads.py ../../testdata

clean:
	rm -rf bin build

# The CUDA backend. gorgonia.org/cu wants a cuda.h and a libcuda: it gets ours, which
# need no CUDA toolkit. cgo puts these flags before cu's own, so they win over an
# installed one. Go does not see that headers and libraries outside of a package
# change; a folder named after their checksum makes it.
CUDA := internal/graph/cuda
DOOR := $(CUDA)/driver/door
DOOR_FILES := $(wildcard $(DOOR)/*.c $(DOOR)/*.S $(DOOR)/*.h $(DOOR)/include/*.h)
DOOR_BUILD := build/door/$(firstword $(shell cat $(DOOR_FILES) | cksum))
CUDA_CC = $(shell go env CC)
export_cuda = export CGO_ENABLED=1 \
	CGO_CFLAGS='-O2 -g "-I$(CURDIR)/$(DOOR_BUILD)/include"' \
	CGO_LDFLAGS='-O2 -g "-L$(CURDIR)/$(DOOR_BUILD)"'
export_standin = $(export_cuda) DDPM_LIBCUDA='$(CURDIR)/build/standin/libcuda.so.1' DDPM_CACHE='$(CURDIR)/build/standin/cache'

cuda: door ## the program with the CUDA backend, into bin/ (needs gcc, no CUDA toolkit)
	$(export_cuda) && go build -trimpath -tags gpu -o bin/ddpm ./cmd/ddpm

cuda-env: door ## what go needs for -tags gpu: eval "$$(make -s cuda-env)"
	@:$(info $(export_cuda))

standin: ## a driver that runs the CUDA kernels on the CPU, for tests (needs g++)
	$(CUDA)/standin/build.sh build/standin

standin-env: door standin ## cuda-env, with the stand-in as the driver
	@:$(info $(export_standin))

test-cuda: door standin ## the CUDA backend, without a GPU, and that its tests can fail
	$(export_standin) && go vet -tags gpu ./... && go test -count=1 -tags gpu ./$(CUDA)/... \
		&& go test -count=1 -tags gpu -run GPU ./internal/model ./internal/train ./cmd/ddpm
	$(MAKE) -j2 -Otarget test-standin mutations

test-standin: ## that the stand-in tells what is wrong with kernels
	$(CUDA)/standin/test.sh build/standin-test

mutations: door standin ## that tests fail where a kernel is wrong
	mkdir -p build/mutations && cp -R build/standin/standin-objects build/mutations
	$(export_standin) && $(CUDA)/mutations.sh build/mutations

door: $(DOOR_BUILD)/libcuda.a

$(DOOR_BUILD)/libcuda.a: $(DOOR_FILES)
	@mkdir -p $(DOOR_BUILD)/include
	cp $(DOOR)/include/*.h $(DOOR_BUILD)/include
	$(CUDA_CC) -O2 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -I$(DOOR)/include -c -o $(DOOR_BUILD)/door.o $(DOOR)/door.c
	$(CUDA_CC) -c -o $(DOOR_BUILD)/slots.o $(DOOR)/slots.S
	$(AR) rcs $@ $(DOOR_BUILD)/door.o $(DOOR_BUILD)/slots.o

kernels: ## params.go and PTX of the CUDA kernels (needs clang-19)
	go generate ./$(CUDA)/kernels

kernels-check: ## that they are what the sources compile to
	go run ./$(CUDA)/kernels/gen -dir $(CUDA)/kernels -check

ptxcheck: ## registers and spills of the CUDA kernels (needs NVIDIA's PTX compiler)
	$(CUDA)/kernels/ptxcheck/ptxcheck.sh

gpu-bundle: ## what a GPU machine needs to check this tree, into build/ (needs gcc)
	scripts/gpu-bundle.sh

gpu-check: ## all that a GPU must show, in ten minutes and one table (after gpu-bundle, on a machine with a GPU)
	scripts/gpu-check.sh --bin build/gpu

image: ## a container image with the CUDA backend (needs docker)
	docker build -f Dockerfile.cuda -t ddpm .
