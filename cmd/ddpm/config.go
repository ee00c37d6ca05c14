package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ddpm/internal/config"
)

func newConfig() *cobra.Command {
	var s settings
	var list bool
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the resolved configuration",
		Long: `Print every key of the configuration with its value, what it means and where the
value comes from. Later sources win: the defaults, the file, the environment
(DDPM_TRAIN_LR for train.lr), --set. The output is a configuration file itself.`,
		Example: `  ddpm config
  ddpm config --config cifar --set train.batch=64
  ddpm config --config cifar > my.yaml
  ddpm config --list`,
		Args: noArgument,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			if list {
				for _, name := range config.Presets() {
					fmt.Fprintln(out, name)
				}
				return nil
			}
			r, err := s.load(config.Options{Config: s.config})
			if err != nil {
				return err
			}
			return r.Annotated(out)
		},
	}
	s.add(c.Flags())
	c.Flags().BoolVar(&list, "list", false, "print the names of the presets instead")
	return c
}
