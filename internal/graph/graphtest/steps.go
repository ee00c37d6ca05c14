package graphtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
	"ddpm/internal/model"
)

func stepCases() []testCase {
	return []testCase{
		{"steps/of_whole_batches", func(b graph.Backend) error { return makeSteps(b, 1) }},
		{"steps/of_three_parts", func(b graph.Backend) error { return makeSteps(b, 3) }},
		{"steps/as_programs_do", stepsAsPrograms},
		{"steps/ignore_a_loss_that_is_not_finite", stepNotFinite},
		{"steps/refuse_wrong_feeds", stepRefusesFeeds},
		{"steps/do_not_allocate", stepsDoNotAllocate},
		{"steps/without_losses", stepWithoutLosses},
		{"steps/carry_an_output_over", func(b graph.Backend) error { return carryOutput(b, 0) }},
		{"steps/carry_kept_values_over", func(b graph.Backend) error { return carryOutput(b, 2) }},
		{"steps/of_guided_sampling", guidedSampling},
	}
}

// mildAdam keeps the sign of gradients that are zero but for rounding out of the
// weights.
func mildAdam(step int) graph.Update {
	return graph.Update{Step: step, LR: 0.05, Beta1: 0.9, Beta2: 0.99, Eps: 0.1, Clip: 2, EMADecay: 0.5}
}

// stepper is a Step of a loaded graph.
func (s *loaded) stepper(parts int) (graph.Step, error) {
	return graph.LoadStep(s.backend, s.plan, s.state, parts)
}

// partFeeds are the inputs of part i of a step, of size images, from image first on.
func partFeeds(first, i, size int) graph.Feeds { return trainingFeeds((first+i*size)%3, size) }

// stage hands a step its parts.
func stage(s graph.Step, first, parts, size int) error {
	for i := range parts {
		if err := s.Stage(i, partFeeds(first, i, size)); err != nil {
			return err
		}
	}
	return nil
}

// lossesOf are the losses of the parts that stage hands to a step, as a program has them.
func (s *loaded) lossesOf(first, parts, size int) ([]float32, error) {
	var losses []float32
	for i := range parts {
		outputs, err := s.run(partFeeds(first, i, size))
		if err != nil {
			return nil, err
		}
		losses = append(losses, outputs["losses"]...)
	}
	return losses, nil
}

// makeSteps compares three steps, the next always staged while one runs, with
// those of the reference.
func makeSteps(b graph.Backend, parts int) error {
	return trainingPair(b, 2, func(p *pair) error {
		got, err := p.got.stepper(parts)
		if err != nil {
			return err
		}
		want, err := p.want.stepper(parts)
		if err != nil {
			return err
		}
		firstLosses, err := p.want.lossesOf(0, parts, 2)
		if err != nil {
			return err
		}
		wrong := []error{stage(got, 0, parts, 2), stage(want, 0, parts, 2)}
		var losses, copied []float32
		for k := range 3 {
			for _, s := range []graph.Step{got, want} {
				wrong = append(wrong, s.Start(context.Background(), mildAdam(k+1)))
				if k < 2 {
					wrong = append(wrong, stage(s, k+1, parts, 2))
				}
			}
			wrong = append(wrong, sameBits("losses of the step before, while the next runs", losses, copied))
			have, err := got.Wait()
			must, err2 := want.Wait()
			if err := errors.Join(append(wrong, err, err2)...); err != nil {
				return err
			}
			within := gradients.of(b)
			if math.Abs(have.Loss-must.Loss) > predicted.of(b)*must.Loss || math.Abs(have.GradNorm-must.GradNorm) > within*must.GradNorm || have.Part != -1 {
				wrong = append(wrong, fmt.Errorf("step %d: %+v, want %+v", k+1, have, must))
			}
			if k == 0 {
				must.Losses = firstLosses
			}
			shape := graph.Shape{parts, 2}
			wrong = append(wrong, compare(fmt.Sprintf("losses of step %d", k+1), shape, have.Losses, must.Losses, predicted.of(b), 0))
			losses, copied = have.Losses, slices.Clone(have.Losses)
		}
		for _, a := range []graph.Arena{graph.Params, graph.EMA, graph.AdamM} {
			wrong = append(wrong, p.compareArena(a, gradients, vanishing))
		}
		return errors.Join(append(wrong, got.Close(), want.Close())...)
	})
}

// stepsAsPrograms compares, bit for bit, a step with the run of a program and an
// update, and a step after it, when the parts are one.
func stepsAsPrograms(b graph.Backend) error {
	return trainingPair(b, 2, func(apart *pair) error {
		return trainingPair(b, 2, func(whole *pair) error {
			step, err := whole.got.stepper(1)
			if err != nil {
				return err
			}
			var wrong []error
			for k := range 2 {
				outputs, err := apart.got.run(trainingFeeds(k, 2))
				if err != nil {
					return err
				}
				norm, err := apart.got.state.Update(mildAdam(k + 1))
				if err != nil {
					return err
				}
				if err := errors.Join(stage(step, k, 1, 2), step.Start(context.Background(), mildAdam(k+1))); err != nil {
					return err
				}
				r, err := step.Wait()
				if err != nil {
					return err
				}
				if float32(r.Loss) != outputs["loss"][0] || r.GradNorm != norm {
					wrong = append(wrong, fmt.Errorf("step %d: %+v, a program gives loss %v and norm %v", k+1, r, outputs["loss"][0], norm))
				}
				wrong = append(wrong, sameBits("losses", r.Losses, outputs["losses"]))
				for _, a := range arenas {
					have, err := whole.got.read(a)
					want, err2 := apart.got.read(a)
					if err := errors.Join(err, err2); err != nil {
						return err
					}
					wrong = append(wrong, sameBits(a.String(), have, want))
				}
			}
			return errors.Join(append(wrong, step.Close())...)
		})
	})
}

// stepNotFinite checks that a part whose loss is not finite is named and changes
// nothing, and that training goes on.
func stepNotFinite(b graph.Backend) error {
	return trainingPair(b, 2, func(p *pair) error {
		step, err := p.got.stepper(2)
		if err != nil {
			return err
		}
		poisoned := maps.Clone(trainingFeeds(2, 2))
		signal := append([]float32{}, poisoned["signal"].([]float32)...)
		signal[1] = float32(math.NaN())
		poisoned["signal"] = signal
		before, err := p.got.read(graph.Params)
		if err != nil {
			return err
		}
		err = errors.Join(step.Stage(0, trainingFeeds(0, 2)), step.Stage(1, poisoned), step.Start(context.Background(), mildAdam(1)))
		if err != nil {
			return err
		}
		r, err := step.Wait()
		if err != nil {
			return err
		}
		if r.Part != 1 || !math.IsNaN(r.GradNorm) {
			return fmt.Errorf("a NaN in part 1 gives %+v", r)
		}
		after, err := p.got.read(graph.Params)
		if err != nil {
			return err
		}
		if err := sameBits("weights after a loss that is not finite", after, before); err != nil {
			return err
		}
		err = errors.Join(stage(step, 0, 2, 2), step.Start(context.Background(), mildAdam(1)))
		if err != nil {
			return err
		}
		if r, err = step.Wait(); err != nil {
			return err
		}
		if r.Part != -1 || math.IsNaN(r.Loss) || math.IsNaN(r.GradNorm) {
			return fmt.Errorf("the step after it gives %+v", r)
		}
		return step.Close()
	})
}

func stepRefusesFeeds(b graph.Backend) error {
	return trainingPair(b, 2, func(p *pair) error {
		step, err := p.got.stepper(1)
		if err != nil {
			return err
		}
		for name := range trainingFeeds(0, 2) {
			bad := maps.Clone(trainingFeeds(0, 2))
			bad[name] = []float64{1}
			if err := step.Stage(0, bad); err == nil {
				return fmt.Errorf("input %q of another type is not an error", name)
			}
		}
		return step.Close()
	})
}

// stepsDoNotAllocate excuses the reference: it is not for use.
func stepsDoNotAllocate(b graph.Backend) error {
	return trainingPair(b, 2, func(p *pair) error {
		if _, excused := p.got.state.(*reference.State); excused {
			return nil
		}
		step, err := p.got.stepper(2)
		if err != nil {
			return err
		}
		feeds, ctx := trainingFeeds(0, 2), context.Background()
		n, err := allocations(func() error {
			for part := range 2 {
				if err := step.Stage(part, feeds); err != nil {
					return err
				}
			}
			if err := step.Start(ctx, mildAdam(1)); err != nil {
				return err
			}
			_, err := step.Wait()
			return err
		})
		if err == nil && n > 0 {
			err = fmt.Errorf("%d allocations in a step", n)
		}
		return errors.Join(err, step.Close())
	})
}

// stepWithoutLosses makes a step of a graph that has no output of them.
func stepWithoutLosses(b graph.Backend) error {
	builder := graph.NewBuilder(graph.Float32)
	w := builder.Param("w", graph.Vector, graph.Init{}, 5)
	loss := builder.Mean(builder.SquaredError(w, builder.Input("target", graph.Float32, 5)))
	g, err := builder.Finish(loss, map[string]*graph.Node{"loss": loss})
	if err != nil {
		return err
	}
	return withPair(b, g, nil, func(p *pair) error {
		step, err := p.got.stepper(1)
		if err != nil {
			return err
		}
		feeds := graph.Feeds{"target": []float32{1, 1, 1, 1, 1}}
		if err := errors.Join(step.Stage(0, feeds), step.Start(context.Background(), mildAdam(1))); err != nil {
			return err
		}
		r, err := step.Wait()
		if err == nil && (r.Losses != nil || r.Loss != 1 || r.Part != -1) {
			err = fmt.Errorf("%+v, want a loss of 1 and no losses", r)
		}
		return errors.Join(err, step.Close())
	})
}

// sampled is the size of the images that networks of package graphtest sample.
var sampled = model.Size{Height: size, Width: size, Channels: 3}

// carryOutput makes steps of the reverse process, whose images and kept values stay on
// the device in between.
func carryOutput(b graph.Backend, kept int) error {
	g, err := model.Reverse(first, sampled, 2, model.Sampling{Clip: true, Kept: kept})
	if err != nil {
		return err
	}
	return withPair(b, g, weightsOf(g.Layout), func(p *pair) error {
		feeds := graph.Feeds{
			"x": normal(2, size, size, 3).feed(1), "t": timesteps(2).feed(2), "keys": keys(2).feed(3),
			"coefs": reverseCoefs(kept),
		}
		for i := range kept {
			feeds[model.KeptName(i)] = normal(2, size, size, 3).feed(4 + i)
		}
		wrong := []error{p.compareRun(feeds, predicted)}
		for range 2 {
			feeds["x"] = graph.FromOutput("x_prev")
			for i := range kept {
				feeds[model.KeptName(i)] = graph.FromOutput(model.KeptName(i))
			}
			wrong = append(wrong, p.compareRun(feeds, predicted))
		}
		feeds["x"] = graph.FromOutput("nonesuch")
		if err := p.got.program.Run(context.Background(), feeds); err == nil {
			wrong = append(wrong, errors.New("an input fed from an output that the graph does not have is not an error"))
		}
		return errors.Join(wrong...)
	})
}

// reverseCoefs are coefficients that keep images and kept values about where they are.
func reverseCoefs(kept int) []float32 {
	op := graph.PSample{Kept: kept}
	coefs := make([]float32, op.Coefs())
	copy(coefs, []float32{1.1, -0.4, 0.1, 0.9, 0.5, 0.4, 0.1, 0.2, -3, -1})
	for i := range kept {
		coefs[op.KeptCoef(i)] = 0.25 - 0.5*float32(i)
		row := coefs[op.KeptRow(i):]
		row[0], row[1], row[2] = 0.1, 0.7*float32(1-i), -0.2
		row[3+i], row[3+(i+1)%kept] = 0.25, 0.75
	}
	return coefs
}

// guidedSampling makes a step of everything that sampling can do: of a network with
// classes and variances, guided, limited, with kept values.
func guidedSampling(b graph.Backend) error {
	config := first
	config.Classes, config.LearnSigma = 4, true
	g, err := model.Reverse(config, sampled, 2, model.Sampling{
		Quantile: 0.9, Learned: true, Kept: 1, Guided: true, Rescale: 0.7,
	})
	if err != nil {
		return err
	}
	return withPair(b, g, weightsOf(g.Layout), func(p *pair) error {
		feeds := graph.Feeds{
			"x": normal(2, size, size, 3).feed(1), "t": []float32{700, 20, 700, 20}, "keys": keys(2).feed(3),
			"class": []uint32{3, 0, 4, 4}, "guidance": []float32{1.5}, "coefs": reverseCoefs(1),
			"kept0": normal(2, size, size, 3).feed(4),
		}
		wrong := []error{p.compareRun(feeds, predicted)}
		feeds["x"], feeds["kept0"] = graph.FromOutput("x_prev"), graph.FromOutput("kept0")
		return errors.Join(append(wrong, p.compareRun(feeds, predicted))...)
	})
}
