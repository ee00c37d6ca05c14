package data

// Config says which images to read and how to shape them.
type Config struct {
	Name       string  `mapstructure:"name" doc:"data set reader"`
	Path       string  `mapstructure:"path" doc:"file or folder the images come from; unused by shapes"`
	Width      int     `mapstructure:"width" doc:"width in pixels images are resized and centre-cropped to"`
	Height     int     `mapstructure:"height" doc:"height in pixels"`
	Channels   int     `mapstructure:"channels" doc:"1 (grey) or 3 (RGB)"`
	Flip       bool    `mapstructure:"flip" doc:"mirror training images left to right with probability 1/2"`
	Classes    bool    `mapstructure:"classes" doc:"folder: the first sub-folder names the class; zip: dataset.json does"`
	Holdout    float64 `mapstructure:"holdout" doc:"share of the images kept for eval where the data set has no test split"`
	Workers    int     `mapstructure:"workers" doc:"goroutines decoding images"`
	Prefetch   int     `mapstructure:"prefetch" doc:"batches decoded ahead"`
	MaxSkipped int     `mapstructure:"max_skipped" doc:"unreadable images skipped before the run stops"`
	Strict     bool    `mapstructure:"strict" doc:"stop at the first unreadable image"`
}
