package model

// Config is the architecture of the U-Net. Images are Height x Width x
// InChannels; those three come from the data set.
type Config struct {
	Block             string    `mapstructure:"block" doc:"resnet (norm, act, conv: diffusers' UNet2DModel) or simple (conv, norm, act)"`
	Channels          int       `mapstructure:"channels" doc:"channels of the first level"`
	Mult              []float64 `mapstructure:"mult" doc:"channels of each level, as multiples of channels"`
	Blocks            int       `mapstructure:"blocks" doc:"residual blocks a level on the way down; one more on the way up"`
	Attention         []int     `mapstructure:"attention" doc:"feature-map heights that get self-attention after each block"`
	MidAttention      bool      `mapstructure:"mid_attention" doc:"self-attention in the middle block"`
	HeadDim           int       `mapstructure:"head_dim" doc:"channels of an attention head; 0 is a single head"`
	Groups            int       `mapstructure:"groups" doc:"groups of every group normalisation"`
	NormEps           float64   `mapstructure:"norm_eps" doc:"epsilon of every group normalisation"`
	Dropout           float64   `mapstructure:"dropout" doc:"probability of dropping an activation in a residual block"`
	Classes           int       `mapstructure:"classes" doc:"classes of images the network is told about; 0 is none"`
	LearnSigma        bool      `mapstructure:"learn_sigma" doc:"predict the variance of the reverse step too (Improved DDPM)"`
	Init              string    `mapstructure:"init" doc:"initial weights: pytorch, or ddpm (Ho et al.: fan-average, branch ends near zero)"`
	Conv              string    `mapstructure:"conv" doc:"3x3 convolutions on the CPU: direct, winograd (fewer multiplications, other rounding), or auto (winograd where it is faster)"`
	DownsamplePadding int       `mapstructure:"downsample_padding" doc:"0 pads one row below and one column right (diffusers, DDPM); 1 pads all sides"`
	FlipSinToCos      bool      `mapstructure:"flip_sin_to_cos" doc:"time embedding with the cosine half first"`
	FreqShift         float64   `mapstructure:"freq_shift" doc:"shift of the time embedding's frequency exponent"`
}
