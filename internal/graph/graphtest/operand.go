package graphtest

import (
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// operand is an input of a test: a type, a shape and what to fill it with.
type operand struct {
	dtype graph.DType
	shape []int
	fill  func(key rng.Key, n int) any
}

// feed is the operand's value; index keeps operands of one shape apart.
func (o operand) feed(index int) any {
	n := 1
	for _, d := range o.shape {
		n *= d
	}
	return o.fill(rng.Key{Seed: 2006, Stream: rng.Noise, Step: uint32(index)}, n)
}

// normal is standard normal values.
func normal(shape ...int) operand { return spread(0, 1, shape...) }

// spread is normal values of the given mean and standard deviation.
func spread(mean, std float32, shape ...int) operand {
	return operand{graph.Float32, shape, func(key rng.Key, n int) any {
		v := make([]float32, n)
		key.Normals(v)
		for i := range v {
			v[i] = mean + std*v[i]
		}
		return v
	}}
}

// values are the given ones.
func values(v ...float32) operand {
	return operand{graph.Float32, []int{len(v)}, func(rng.Key, int) any { return v }}
}

// valuesOf are the given ones in a shape.
func valuesOf(v []float32, shape ...int) operand {
	return operand{graph.Float32, shape, func(rng.Key, int) any { return slices.Clone(v) }}
}

// squares are squares of normal values of the given standard deviation.
func squares(std float32, shape ...int) operand {
	o := spread(0, std, shape...)
	fill := o.fill
	o.fill = func(key rng.Key, n int) any {
		v := fill(key, n).([]float32)
		for i := range v {
			v[i] *= v[i]
		}
		return v
	}
	return o
}

// limits are n limits of dynamic thresholding: 1, then more.
func limits(n int) operand {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1 + 0.375*float32(i%3)
	}
	return valuesOf(v, n)
}

// timesteps are n different steps, 0 and 999 among them.
func timesteps(n int) operand {
	return operand{graph.Float32, []int{n}, func(_ rng.Key, n int) any {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(i * 999 / max(1, n-1))
		}
		return v
	}}
}

// bytes are pixels, uniform in 0..255.
func bytes(shape ...int) operand {
	return operand{graph.Uint8, shape, func(key rng.Key, n int) any {
		v := make([]uint8, n)
		for i := range v {
			v[i] = uint8(key.Block(uint32(i))[0])
		}
		return v
	}}
}

// flips are 0 and 1 in turn, 1 first.
func flips(n int) operand {
	return operand{graph.Float32, []int{n}, func(_ rng.Key, n int) any {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(1 - i%2)
		}
		return v
	}}
}

// indices are n rows of a table of so many, at random and so most of them repeated.
func indices(n, rows int) operand {
	return operand{graph.Uint32, []int{n}, func(key rng.Key, n int) any {
		v := make([]uint32, n)
		for i := range v {
			v[i] = key.Block(uint32(i))[0] % uint32(rows)
		}
		return v
	}}
}

// keys are n rows of an rng.Key's words, all of their 32 bits in use.
func keys(n int) operand {
	return operand{graph.Uint32, []int{n, 4}, func(key rng.Key, n int) any {
		v := make([]uint32, n)
		for i := range v {
			v[i] = key.Block(uint32(i))[0]
		}
		return v
	}}
}
