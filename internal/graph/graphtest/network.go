package graphtest

import (
	"errors"
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
)

// Tolerances of whole networks, relative to the largest value of an output or
// of a parameter's gradient: errors of single kernels add up over some fifty.
var (
	predicted = tolerance{2e-5, 5e-3, 5e-2}
	gradients = tolerance{5e-5, 2e-2, 0.15}
)

// vanishing, of the largest of all gradients, is where a gradient counts as zero
// but for rounding. That of an attention key's bias is: softmax does not see it.
const vanishing = 1e-3

// networks is one small U-Net for each kind of block; between them they use
// every option.
var networks = []struct {
	name   string
	config model.Config
}{
	{"resnet", model.Config{
		Block: "resnet", Channels: 8, Mult: []float64{1, 2}, Blocks: 1, Attention: []int{4}, MidAttention: true,
		Groups: 4, NormEps: 1e-6, Init: "pytorch", Dropout: 0.2, FreqShift: 1,
	}},
	{"simple", model.Config{
		Block: "simple", Channels: 6, Mult: []float64{1, 1.5, 2}, Blocks: 2, Attention: []int{8}, HeadDim: 3,
		Groups: 3, NormEps: 1e-5, Init: "ddpm", DownsamplePadding: 1, FlipSinToCos: true,
	}},
}

const size = 8 // height and width of the networks' images

// trainingGraph is a training step as a whole: from bytes to the loss.
func trainingGraph(config model.Config, batch int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	images, flip := b.Input("images", graph.Uint8, batch, size, size, 3), b.Input("flip", graph.Float32, batch)
	key := b.Input("keys", graph.Uint32, batch, 4)
	perSample := func(name string) *graph.Node { return b.Input(name, graph.Float32, batch) }
	xt, target := b.QSample(rng.Noise, images, flip, key,
		perSample("signal"), perSample("noise"), perSample("target signal"), perSample("target noise"))
	out := model.UNet(b, config, model.Inputs{X: xt, T: perSample("t"), Keys: key})
	errs := b.SquaredError(out, target)
	loss := b.Mean(errs)
	return b.Finish(loss, map[string]*graph.Node{"out": out, "losses": errs, "loss": loss})
}

// trainingFeeds are the inputs of images first to first+batch of a set.
func trainingFeeds(first, batch int) graph.Feeds {
	take := func(o operand, row int) any {
		switch v := o.feed(0).(type) {
		case []uint8:
			return v[first*row : (first+batch)*row]
		case []uint32:
			return v[first*row : (first+batch)*row]
		default:
			return v.([]float32)[first*row : (first+batch)*row]
		}
	}
	const set = 6
	return graph.Feeds{
		"images": take(bytes(set, size, size, 3), size*size*3),
		"flip":   take(flips(set), 1),
		"keys":   take(keys(set), 4),
		"t":      take(timesteps(set), 1),
		"signal": take(spread(0.7, 0.1, set), 1), "noise": take(spread(0.6, 0.1, set), 1),
		"target signal": take(spread(-0.6, 0.1, set), 1), "target noise": take(spread(0.7, 0.1, set), 1),
	}
}

// samplingGraph is the network alone.
func samplingGraph(config model.Config, batch int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, batch, size, size, 3)
	out := model.UNet(b, config, model.Inputs{X: x, T: b.Input("t", graph.Float32, batch)})
	return b.Finish(nil, map[string]*graph.Node{"out": out})
}

func samplingFeeds(batch int) graph.Feeds {
	return graph.Feeds{"x": normal(batch, size, size, 3).feed(1), "t": timesteps(batch).feed(2)}
}

// weightsOf are initial weights, moved off the constants that would hide a
// scale or shift that is not applied.
func weightsOf(l *graph.Layout) []float32 {
	weights := l.InitialWeights(7)
	for i, p := range l.Params {
		w := weights[p.Offset : p.Offset+p.Len]
		for j, z := range normal(p.Len).feed(100 + i).([]float32) {
			w[j] += 0.05 * z
		}
	}
	return weights
}

func networkCases() []testCase {
	var cases []testCase
	for _, network := range networks {
		config := network.config
		for _, batch := range []int{1, 3} {
			cases = append(cases, testCase{
				fmt.Sprintf("networks/%s/sampling_%d", network.name, batch),
				func(b graph.Backend) error {
					g, err := samplingGraph(config, batch)
					if err != nil {
						return err
					}
					return withPair(b, g, weightsOf(g.Layout), func(p *pair) error {
						return p.compareRun(samplingFeeds(batch), predicted)
					})
				},
			}, testCase{
				fmt.Sprintf("networks/%s/training_%d", network.name, batch),
				func(b graph.Backend) error {
					g, err := trainingGraph(config, batch)
					if err != nil {
						return err
					}
					return withPair(b, g, weightsOf(g.Layout), func(p *pair) error {
						outputs := p.compareRun(trainingFeeds(0, batch), predicted)
						return errors.Join(outputs, p.compareArena(graph.Grads, gradients, vanishing))
					})
				},
			})
		}
	}
	return cases
}
