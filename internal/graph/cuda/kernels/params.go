// Code generated from the CUDA sources by gen; DO NOT EDIT.

package kernels

import "reflect"

// AccumulateParams is the struct in optimizer.cu: 32 bytes.
type AccumulateParams struct {
	Sum     Ptr
	X       Ptr
	Scalars Ptr
	N       int64
}

// AccumulateScalarsParams is the struct in optimizer.cu: 8 bytes.
type AccumulateScalarsParams struct {
	First int32
	Scale float32
}

// AdamParams is the struct in optimizer.cu: 72 bytes.
type AdamParams struct {
	Weights Ptr
	Grads   Ptr
	M       Ptr
	V       Ptr
	Ema     Ptr
	Rounded Ptr
	Norm    Ptr
	Scalars Ptr
	N       int64
}

// AdamScalarsParams is the struct in optimizer.cu: 28 bytes.
type AdamScalarsParams struct {
	Rate        float32
	Beta1Rest   float32
	Beta2Rest   float32
	InverseRoot float32
	Epsilon     float32
	Clip        float32
	EmaRest     float32
}

// AddPerSampleParams is the struct in elementwise.cu: 64 bytes.
type AddPerSampleParams struct {
	X        Values
	V        Ptr
	Out      Values
	Pixels   int32
	Channels int32
	Chunk    int32
	Chunks   int32
	Lanes    int32
	Rows     int32
}

// AttentionParams is the struct in attention.cu: 88 bytes.
type AttentionParams struct {
	Q      AttentionTensor
	K      AttentionTensor
	V      AttentionTensor
	Out    AttentionTensor
	Shape  AttentionShape
	Slices int32
	Scale  float32
}

// AttentionProductsParams is the struct in attention_products.cu: 136 bytes.
type AttentionProductsParams struct {
	Q       AttentionTensor
	K       AttentionTensor
	Dout    AttentionTensor
	Dq      AttentionTensor
	Dk      AttentionTensor
	Dv      AttentionTensor
	Shape   AttentionShape
	Weights Ptr
	Slopes  Ptr
	Pitch   int32
	First   int32
}

// AttentionScoresParams is the struct in attention_scores.cu: 112 bytes.
type AttentionScoresParams struct {
	Q         AttentionTensor
	K         AttentionTensor
	V         AttentionTensor
	Dout      AttentionTensor
	Shape     AttentionShape
	Weights   Ptr
	Slopes    Ptr
	Pitch     int32
	First     int32
	Scale     float32
	Log2Scale float32
}

// AttentionShape is the struct in attention_tiles.h: 16 bytes.
type AttentionShape struct {
	Length   int32
	Channels int32
	Heads    int32
	Width    int32
}

// AttentionTensor is the struct in attention_tiles.h: 16 bytes.
type AttentionTensor struct {
	Data Ptr
	Bf16 int32
	_    [4]byte
}

// ConvDataParams is the struct in conv_data.cu: 232 bytes.
type ConvDataParams struct {
	Dy      ConvImage
	W       ConvWeights
	Shares  ConvShares
	Result  ConvResult
	Stride  int32
	Top     int32
	Left    int32
	Height  int32
	Width   int32
	Pixels  uint32
	ByPlane FastDivisor
	ByWidth FastDivisor
}

// ConvForwardParams is the struct in conv_forward.cu: 232 bytes.
type ConvForwardParams struct {
	X      ConvImage
	Window ConvWindow
	_      [4]byte
	W      ConvMatrix
	Shares ConvShares
	Result ConvResult
}

// ConvImage is the struct in operand.h: 64 bytes.
type ConvImage struct {
	First         Ptr
	Second        Ptr
	FirstChannels int32
	Channels      int32
	FirstBf16     int32
	SecondBf16    int32
	Height        int32
	Width         int32
	Doubled       int32
	Chunked       int32
	ByChannels    FastDivisor
	_             [4]byte
}

// ConvMatrix is the struct in operand.h: 24 bytes.
type ConvMatrix struct {
	Data    Ptr
	Bf16    int32
	Chunked int32
	Rows    int32
	Columns int32
}

// ConvResult is the struct in product.h: 72 bytes.
type ConvResult struct {
	Y            Ptr
	Bias         Ptr
	PerSample    Ptr
	Residual     Ptr
	Rows         int64
	Columns      int32
	YBf16        int32
	ResidualBf16 int32
	InPieces     int32
	BySample     FastDivisor
	_            [4]byte
}

// ConvShares is the struct in product.h: 16 bytes.
type ConvShares struct {
	Sums  Ptr
	Count int32
	Steps int32
}

// ConvSharesParams is the struct in conv_shares.cu: 88 bytes.
type ConvSharesParams struct {
	Shares ConvShares
	Result ConvResult
}

// ConvWeightParams is the struct in conv_weight.cu: 232 bytes.
type ConvWeightParams struct {
	X      ConvImage
	Window ConvWindow
	_      [4]byte
	Dy     ConvMatrix
	Shares ConvShares
	Result ConvResult
}

// ConvWeights is the struct in operand.h: 32 bytes.
type ConvWeights struct {
	Data    Ptr
	Bf16    int32
	Chunked int32
	R       int32
	S       int32
	C       int32
	K       int32
}

// ConvWindow is the struct in operand.h: 52 bytes.
type ConvWindow struct {
	Rows    int32
	Columns int32
	Stride  int32
	Step    int32
	Top     int32
	Left    int32
	Pixels  uint32
	ByPlane FastDivisor
	ByWidth FastDivisor
}

// DoubleParams is the struct in resample.cu: 56 bytes.
type DoubleParams struct {
	Small    Values
	Large    Values
	Width    int32
	Channels int32
	Tiles    int32
	Lanes    int32
	Rows     int32
	_        [4]byte
}

// DropoutParams is the struct in diffuse.cu: 72 bytes.
type DropoutParams struct {
	X       Values
	Y       Values
	Keys    Ptr
	Extents QuadExtents
	Stream  uint32
	Limit   uint32
	Scale   float32
	_       [4]byte
}

// EmbeddingParams is the struct in diffuse.cu: 1072 bytes.
type EmbeddingParams struct {
	T         Ptr
	Out       Ptr
	N         int32
	Dim       int32
	Sine      int32
	Cosine    int32
	Count     FastDivisor
	Frequency [256]float32
	_         [4]byte
}

// FastDivisor is the struct in numeric.h: 12 bytes.
type FastDivisor struct {
	Divisor    uint32
	Multiplier uint32
	Shift      uint32
}

// GradNormParams is the struct in optimizer.cu: 24 bytes.
type GradNormParams struct {
	Parts Ptr
	Norm  Ptr
	Count int32
	_     [4]byte
}

// JoinParams is the struct in resample.cu: 80 bytes.
type JoinParams struct {
	A        Values
	B        Values
	Out      Values
	Height   int64
	AStride  int32
	AFrom    int32
	Split    int32
	Channels int32
	Lanes    int32
	Rows     int32
}

// MapParams is the struct in elementwise.cu: 56 bytes.
type MapParams struct {
	X   Values
	Y   Values
	Out Values
	N   int64
}

// MeanGradParams is the struct in loss.cu: 24 bytes.
type MeanGradParams struct {
	X   Ptr
	Out Ptr
	N   int32
	_   [4]byte
}

// NormExtents is the struct in groupnorm.cu: 44 bytes.
type NormExtents struct {
	Pixels     int32
	Channels   int32
	Split      int32
	Groups     int32
	GroupWidth FastDivisor
	Chunk      int32
	Chunks     int32
	Lanes      int32
	Rows       int32
}

// NormGradDataParams is the struct in groupnorm.cu: 160 bytes.
type NormGradDataParams struct {
	A        Values
	B        Values
	Stats    Ptr
	Gamma    Ptr
	Beta     Ptr
	Dy       Values
	Sums     Ptr
	Residual Values
	Dx       Values
	Extents  NormExtents
	Silu     int32
}

// NormGradSumsParams is the struct in groupnorm.cu: 128 bytes.
type NormGradSumsParams struct {
	A       Values
	B       Values
	Stats   Ptr
	Gamma   Ptr
	Beta    Ptr
	Dy      Values
	Sums    Ptr
	Extents NormExtents
	Silu    int32
}

// NormParams is the struct in groupnorm.cu: 120 bytes.
type NormParams struct {
	A       Values
	B       Values
	Stats   Ptr
	Gamma   Ptr
	Beta    Ptr
	Y       Values
	Extents NormExtents
	Silu    int32
}

// NormStatsParams is the struct in groupnorm.cu: 96 bytes.
type NormStatsParams struct {
	A       Values
	B       Values
	Stats   Ptr
	Moments Ptr
	Extents NormExtents
	Epsilon float32
}

// PSampleParams is the struct in diffuse.cu: 96 bytes.
type PSampleParams struct {
	X       Values
	Out     Values
	Keys    Ptr
	Coefs   Ptr
	Result  Values
	Total   int64
	Extents QuadExtents
	Stream  uint32
	Clip    int32
}

// QSampleParams is the struct in diffuse.cu: 128 bytes.
type QSampleParams struct {
	Images       Ptr
	Flip         Ptr
	Keys         Ptr
	Signal       Ptr
	Noise        Ptr
	TargetSignal Ptr
	TargetNoise  Ptr
	Out          Values
	Total        int64
	Extents      QuadExtents
	Channels     FastDivisor
	Width        FastDivisor
	Stream       uint32
	_            [4]byte
}

// QuadExtents is the struct in quads.h: 16 bytes.
type QuadExtents struct {
	Size   int64
	Blocks int32
	Whole  int32
}

// RowSumsParams is the struct in loss.cu: 32 bytes.
type RowSumsParams struct {
	X       Ptr
	Out     Ptr
	Length  int64
	Divisor float32
	_       [4]byte
}

// SquaredErrorGradParams is the struct in loss.cu: 80 bytes.
type SquaredErrorGradParams struct {
	Pred    Values
	Target  Values
	Derror  Ptr
	Dpred   Values
	Extents QuadExtents
	Scale   float32
	_       [4]byte
}

// SquaredErrorParams is the struct in loss.cu: 72 bytes.
type SquaredErrorParams struct {
	Pred    Values
	Target  Values
	Out     Ptr
	Extents QuadExtents
	Chunk   int64
	Chunks  int32
	Divisor float32
}

// SquaresParams is the struct in optimizer.cu: 24 bytes.
type SquaresParams struct {
	X     Ptr
	Parts Ptr
	N     int64
}

// SumColumnsParams is the struct in reduce.cu: 56 bytes.
type SumColumnsParams struct {
	X       Values
	Out     Ptr
	Length  int64
	Chunk   int64
	Columns int32
	Chunks  int32
	Lanes   int32
	Rows    int32
}

// Values is the struct in values.h: 16 bytes.
type Values struct {
	Data Ptr
	Bf16 int32
	_    [4]byte
}

// table lists every kernel by name.
var table = []Kernel{
	{Name: "accumulate", Module: "optimizer", Params: reflect.TypeFor[AccumulateParams]()},
	{Name: "adam_step", Module: "optimizer", Params: reflect.TypeFor[AdamParams]()},
	{Name: "add_per_sample_any", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "add_per_sample_bf16", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "add_per_sample_f32", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "attn_forward_bf16_128x128", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_128x64", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_256x256_whole", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x256", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x64_any", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_128x64", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_64x128", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_64x64_any", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_tf32_128x64", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_tf32_64x256", Module: "attention", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_products_bf16_128x128", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_bf16_64x64", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_bf16_64x64_any", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_fp32_64x64", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_fp32_64x64_any", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_tf32_128x128", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_products_tf32_64x64", Module: "attention_products", Params: reflect.TypeFor[AttentionProductsParams]()},
	{Name: "attn_scores_bf16_128", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "attn_scores_bf16_256_whole", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "attn_scores_bf16_64_any", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "attn_scores_fp32_128", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "attn_scores_fp32_64_any", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "attn_scores_tf32_128", Module: "attention_scores", Params: reflect.TypeFor[AttentionScoresParams]()},
	{Name: "conv_data_bf16_128x128", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_128x64", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_64x64", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_any", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_128x64", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_64x64", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_any", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_128x128", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_64x64", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_any", Module: "conv_data", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_forward_bf16_128x128", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_128x64", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_128x8", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_64x64", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_any", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_128x64", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_128x8", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_64x64", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_any", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_128x128", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_128x8", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_64x64", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_any", Module: "conv_forward", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_sum_shares", Module: "conv_shares", Params: reflect.TypeFor[ConvSharesParams]()},
	{Name: "conv_weight_bf16_128x128", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_128x64", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_128x8", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_64x64", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_any", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_128x64", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_128x8", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_64x64", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_any", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_128x128", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_128x8", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_64x64", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_any", Module: "conv_weight", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "dropout_any", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "dropout_bf16", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "dropout_f32", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "grad_norm", Module: "optimizer", Params: reflect.TypeFor[GradNormParams]()},
	{Name: "join_any", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "join_bf16", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "join_f32", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "map_add_any", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_add_bf16", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_add_f32", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_any", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_bf16", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_f32", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_round", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_any", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_bf16", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_f32", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_any", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_bf16", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_f32", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_widen", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "mean_grad", Module: "loss", Params: reflect.TypeFor[MeanGradParams]()},
	{Name: "norm_forward_any", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_forward_bf16", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_forward_f32", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_grad_data_any", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_data_bf16", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_data_f32", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_sums_any", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_grad_sums_bf16", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_grad_sums_f32", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_stats_any", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_bf16", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_f32", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_merge", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "p_sample", Module: "diffuse", Params: reflect.TypeFor[PSampleParams]()},
	{Name: "q_sample", Module: "diffuse", Params: reflect.TypeFor[QSampleParams]()},
	{Name: "row_sums", Module: "loss", Params: reflect.TypeFor[RowSumsParams]()},
	{Name: "squared_error", Module: "loss", Params: reflect.TypeFor[SquaredErrorParams]()},
	{Name: "squared_error_grad", Module: "loss", Params: reflect.TypeFor[SquaredErrorGradParams]()},
	{Name: "sum_columns_any", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_columns_bf16", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_columns_f32", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_squares", Module: "optimizer", Params: reflect.TypeFor[SquaresParams]()},
	{Name: "timestep_embedding", Module: "diffuse", Params: reflect.TypeFor[EmbeddingParams]()},
	{Name: "upsample_any", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_bf16", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_f32", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_any", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_bf16", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_f32", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
}
