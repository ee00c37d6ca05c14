package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"ddpm/internal/data"
	"ddpm/internal/picture"
	"ddpm/internal/progress"
	"ddpm/internal/samples"
)

func newData() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "Look at a data set",
		Long:  "Look at a data set before training on it.",
		Args:  known,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newDataCheck())
	return c
}

func newDataCheck() *cobra.Command {
	var d dataCheck
	c := &cobra.Command{
		Use:   "check PATH",
		Short: "Read a whole data set and report what is in it",
		Long: `Read every image of a data set, report how many there are of which size and class,
name those that cannot be read, and draw the first ones as they will be trained
on. What kind of data set PATH is, is guessed from its content.`,
		Example: `  ddpm data check cifar-10-binary.tar.gz
  ddpm data check photos --width 64 --height 64 --out photos.png
  ddpm data check photos.zip --strict`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(c, "want the path of one data set, have %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			d.cfg.Path = args[0]
			return d.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&d.cfg.Name, "name", "", "kind of data set, as data.name; not given, it is guessed")
	f.BoolVar(&d.cfg.Classes, "classes", false, "sub-folders are classes")
	f.IntVar(&d.cfg.Width, "width", 0, "width to scale and crop to; 0 is the data set's own, or 64")
	f.IntVar(&d.cfg.Height, "height", 0, "height, likewise")
	f.IntVar(&d.cfg.Channels, "channels", 0, "1 (grey) or 3 (RGB); 0 is the data set's own")
	f.StringVar(&d.out, "out", "", "PNG file of the first images (default preview.png, or preview-2.png and so on if there is one)")
	f.BoolVar(&d.strict, "strict", false, "fail if an image cannot be read")
	return c
}

type dataCheck struct {
	cfg    data.Config
	out    string
	strict bool
}

func (d *dataCheck) run(ctx context.Context, out, errs io.Writer) error {
	if d.out == "" {
		d.out = samples.Unused("preview.png")
	} else if err := samples.Vacant(d.out); err != nil {
		return err
	}
	d.cfg.Workers = runtime.GOMAXPROCS(0)
	var bar *progress.Reporter
	var of data.Split
	report, err := data.Check(ctx, d.cfg, func(split data.Split, done, total int) {
		if bar == nil || split != of {
			if bar != nil {
				bar.Finish()
			}
			bar, of = progress.New(errs, progress.Options{Total: total, Unit: "image"}), split
		}
		bar.Update(images(done))
	})
	if bar != nil {
		bar.Finish()
	}
	if err != nil {
		return err
	}
	if err := report.WriteText(out); err != nil {
		return err
	}
	if report.PreviewCount > 0 {
		c := report.Config
		grid := picture.Grid(report.Preview, report.PreviewCount, c.Width, c.Height, c.Channels, picture.GridOptions{})
		if err := picture.WritePNG(d.out, grid); err != nil {
			return err
		}
		fmt.Fprintf(out, "%-10s %s\n", "preview", d.out)
	}
	bad, all := 0, 0
	for _, s := range report.Splits {
		bad, all = bad+s.Bad, all+s.Images
	}
	switch {
	case bad == all:
		return fmt.Errorf("none of the %d images of %s can be read", all, d.cfg.Path)
	case d.strict && bad > 0:
		return fmt.Errorf("%d of the %d images of %s cannot be read", bad, all, d.cfg.Path)
	}
	return nil
}
