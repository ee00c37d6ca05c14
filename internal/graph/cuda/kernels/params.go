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

// AttentionGradParams is the struct in attention_grad.h: 152 bytes.
type AttentionGradParams struct {
	Q          AttentionTensor
	K          AttentionTensor
	V          AttentionTensor
	Dout       AttentionTensor
	Dq         AttentionTensor
	Dk         AttentionTensor
	Dv         AttentionTensor
	Shape      AttentionShape
	Statistics Ptr
	Slices     int32
	Scale      float32
	Log2Scale  float32
	_          [4]byte
}

// AttentionParams is the struct in attention_forward.h: 88 bytes.
type AttentionParams struct {
	Q      AttentionTensor
	K      AttentionTensor
	V      AttentionTensor
	Out    AttentionTensor
	Shape  AttentionShape
	Slices int32
	Scale  float32
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

// CeilingParams is the struct in ceiling.cu: 24 bytes.
type CeilingParams struct {
	Operands Ptr
	Sums     Ptr
	Rounds   int32
	_        [4]byte
}

// ConvDataParams is the struct in conv_data.h: 232 bytes.
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

// ConvForwardParams is the struct in conv_forward.h: 232 bytes.
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

// ConvPhasesParams is the struct in conv_phases.cu: 32 bytes.
type ConvPhasesParams struct {
	Sums     Ptr
	Y        Ptr
	Elements int64
	Shares   int32
	_        [4]byte
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

// ConvTapsParams is the struct in conv_taps.cu: 32 bytes.
type ConvTapsParams struct {
	W      Ptr
	Sums   Ptr
	Size   int64
	WBf16  int32
	Unused int32
}

// ConvWeightParams is the struct in conv_weight.h: 232 bytes.
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

// EmbeddingRowsGradParams is the struct in embedding.cu: 32 bytes.
type EmbeddingRowsGradParams struct {
	Index  Ptr
	Dy     Ptr
	Dtable Ptr
	Count  int32
	Width  int32
}

// EmbeddingRowsParams is the struct in embedding.cu: 48 bytes.
type EmbeddingRowsParams struct {
	Table Ptr
	Index Ptr
	Out   Ptr
	Width FastDivisor
	Rows  uint32
	Total int32
	_     [4]byte
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

// GuidanceParams is the struct in guide.cu: 96 bytes.
type GuidanceParams struct {
	Both     Values
	W        Ptr
	Scales   Ptr
	Out      Values
	Total    int64
	Extents  QuadExtents
	Channels FastDivisor
	Guided   int32
	R        float32
	Count    float32
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

// NormFoundParams is the struct in groupnorm.cu: 56 bytes.
type NormFoundParams struct {
	A       NormMoments
	B       NormMoments
	Stats   Ptr
	Pixels  int32
	Groups  int32
	Width   int32
	Epsilon float32
}

// NormGradDataParams is the struct in groupnorm.cu: 168 bytes.
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
	Left     Ptr
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

// NormMoments is the struct in groupnorm.cu: 16 bytes.
type NormMoments struct {
	Moments Ptr
	Slots   int32
	Quads   int32
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

// PSampleGeneralParams is the struct in diffuse.cu: 176 bytes.
type PSampleGeneralParams struct {
	X        Values
	Out      Values
	Keys     Ptr
	Coefs    Ptr
	Limits   Ptr
	Old      [3]Values
	Result   Values
	Total    int64
	Extents  QuadExtents
	Channels WideChannels
	Stream   uint32
	Clip     int32
	Learned  int32
	Kept     int32
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

// PerSampleParams is the struct in loss.cu: 32 bytes.
type PerSampleParams struct {
	X   Ptr
	Y   Ptr
	Out Ptr
	N   int32
	C   float32
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

// SquaredErrorGradParams is the struct in loss.cu: 96 bytes.
type SquaredErrorGradParams struct {
	Pred    Values
	Target  Values
	Derror  Ptr
	Dpred   Values
	Extents QuadExtents
	Wide    FastDivisor
	Narrow  int32
	Scale   float32
	_       [4]byte
}

// SquaredErrorParams is the struct in loss.cu: 88 bytes.
type SquaredErrorParams struct {
	Pred     Values
	Target   Values
	Out      Ptr
	Extents  QuadExtents
	Chunk    int64
	Chunks   int32
	Divisor  float32
	Channels WideChannels
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

// TensorMap is the struct in hopper.h: 128 bytes.
type TensorMap struct {
	Words [16]uint64
}

// TmaCeilingParams is the struct in sm_90a/tma_ceiling.cu: 32 bytes.
type TmaCeilingParams struct {
	A      Ptr
	B      Ptr
	Sums   Ptr
	Rounds int32
	_      [4]byte
}

// TmaConvBox is the struct in tma_conv.h: 16 bytes.
type TmaConvBox struct {
	Map     int32
	Channel int32
	Column  int32
	Row     int32
}

// TmaConvNormParams is the struct in sm_90a/tma_conv.cu: 200 bytes.
type TmaConvNormParams struct {
	Conv TmaConvParams
	Norm TmaNorm
}

// TmaConvParams is the struct in tma_conv.h: 128 bytes.
type TmaConvParams struct {
	Table        Ptr
	Y            Ptr
	Bias         Ptr
	PerSample    Ptr
	Residual     Ptr
	Moments      Ptr
	ImageStride  int64
	RowStride    int64
	ColumnStride int64
	Images       int32
	Height       int32
	Width        int32
	Channels     int32
	TilesN       int32
	TilesY       int32
	TilesX       int32
	TilesC       int32
	Pieces       int32
	Shares       int32
	BoxBytes     int32
	BoxStages    int32
	BoxPitch     int32
	Slots        int32
}

// TmaConvPiece is the struct in tma_conv.h: 24 bytes.
type TmaConvPiece struct {
	Offset int64
	Box    int32
	Boxes  int32
	Step   int32
	Steps  int32
}

// TmaConvStep is the struct in tma_conv.h: 16 bytes.
type TmaConvStep struct {
	Opens   int32
	Atom    int32
	Channel int32
	Tap     int32
}

// TmaConvTable is the struct in tma_conv.h: 6656 bytes.
type TmaConvTable struct {
	Maps    [8]TensorMap
	Weights TensorMap
	Pieces  [16]TmaConvPiece
	Boxes   [64]TmaConvBox
	Steps   [256]TmaConvStep
}

// TmaNorm is the struct in tma_norm_sums.h: 72 bytes.
type TmaNorm struct {
	A          Ptr
	B          Ptr
	Stats      Ptr
	Gamma      Ptr
	Beta       Ptr
	Sums       Ptr
	GroupWidth FastDivisor
	Split      int32
	Groups     int32
	Silu       int32
}

// TmaWeightBox is the struct in sm_90a/tma_weight.cu: 20 bytes.
type TmaWeightBox struct {
	Map     int32
	Channel int32
	X       int32
	Y       int32
	Row     int32
}

// TmaWeightGroup is the struct in sm_90a/tma_weight.cu: 92 bytes.
type TmaWeightGroup struct {
	Boxes [4]TmaWeightBox
	Dy    int32
	First int32
	Rows  int32
}

// TmaWeightParams is the struct in sm_90a/tma_weight.cu: 56 bytes.
type TmaWeightParams struct {
	Table       Ptr
	Sums        Ptr
	Rows        int32
	Columns     int32
	TapRows     int32
	ColumnTiles int32
	Images      int32
	Width       int32
	ImageBoxes  int32
	RowBoxes    int32
	PixelBytes  int32
	BoxBytes    int32
}

// TmaWeightTable is the struct in sm_90a/tma_weight.cu: 7424 bytes.
type TmaWeightTable struct {
	X      [8]TensorMap
	Dy     [4]TensorMap
	Groups [64]TmaWeightGroup
}

// Values is the struct in values.h: 16 bytes.
type Values struct {
	Data Ptr
	Bf16 int32
	_    [4]byte
}

// VlbParams is the struct in vlb.cu: 136 bytes.
type VlbParams struct {
	Out      Values
	X        Values
	Target   Values
	Coefs    Ptr
	Terms    Ptr
	Derror   Ptr
	Dout     Values
	Size     int64
	Chunk    int64
	Channels WideChannels
	Chunks   int32
	StopMean int32
	Scale    float32
	_        [4]byte
}

// WideChannels is the struct in quads.h: 16 bytes.
type WideChannels struct {
	Count FastDivisor
	Times int32
}

// X0LimitParams is the struct in diffuse.cu: 80 bytes.
type X0LimitParams struct {
	X        Values
	Out      Values
	Coefs    Ptr
	Limits   Ptr
	Size     int64
	Channels WideChannels
	Rank     int32
	_        [4]byte
}

// table lists every kernel by name.
var table = []Kernel{
	{Name: "accumulate", Set: "sm_80", Module: "optimizer", Params: reflect.TypeFor[AccumulateParams]()},
	{Name: "adam_step", Set: "sm_80", Module: "optimizer", Params: reflect.TypeFor[AdamParams]()},
	{Name: "add_per_sample_any", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "add_per_sample_bf16", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "add_per_sample_f32", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[AddPerSampleParams]()},
	{Name: "attn_forward_bf16_128x256x256_whole", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x128x128", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x128x64", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x256x256_whole", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x64x256", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_bf16_64x64x64_any", Set: "sm_80", Module: "attention_forward_bf16", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_64x128x64", Set: "sm_80", Module: "attention_forward_fp32", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_64x64x128", Set: "sm_80", Module: "attention_forward_fp32", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_fp32_64x64x64_any", Set: "sm_80", Module: "attention_forward_fp32", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_tf32_64x128x64", Set: "sm_80", Module: "attention_forward_tf32", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_forward_tf32_64x64x256", Set: "sm_80", Module: "attention_forward_tf32", Params: reflect.TypeFor[AttentionParams]()},
	{Name: "attn_keys_bf16_128x256x256_whole", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_bf16_64x128x256", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_bf16_64x128x64", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_bf16_64x256x256_whole", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_bf16_64x64x128", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_bf16_64x64x64_any", Set: "sm_80", Module: "attention_keys_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_fp32_64x128x256", Set: "sm_80", Module: "attention_keys_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_fp32_64x64x128", Set: "sm_80", Module: "attention_keys_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_fp32_64x64x64", Set: "sm_80", Module: "attention_keys_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_fp32_64x64x64_any", Set: "sm_80", Module: "attention_keys_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_tf32_64x128x256", Set: "sm_80", Module: "attention_keys_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_tf32_64x128x64", Set: "sm_80", Module: "attention_keys_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_keys_tf32_64x64x128", Set: "sm_80", Module: "attention_keys_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_128x256x256_whole", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_64x128x256", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_64x128x64", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_64x256x256_whole", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_64x64x128", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_bf16_64x64x64_any", Set: "sm_80", Module: "attention_queries_bf16", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_fp32_64x128x256", Set: "sm_80", Module: "attention_queries_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_fp32_64x64x128", Set: "sm_80", Module: "attention_queries_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_fp32_64x64x64", Set: "sm_80", Module: "attention_queries_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_fp32_64x64x64_any", Set: "sm_80", Module: "attention_queries_fp32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_tf32_64x128x256", Set: "sm_80", Module: "attention_queries_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_tf32_64x128x64", Set: "sm_80", Module: "attention_queries_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "attn_queries_tf32_64x64x128", Set: "sm_80", Module: "attention_queries_tf32", Params: reflect.TypeFor[AttentionGradParams]()},
	{Name: "ceiling_bf16", Set: "sm_80", Module: "ceiling", Params: reflect.TypeFor[CeilingParams]()},
	{Name: "ceiling_tf32", Set: "sm_80", Module: "ceiling", Params: reflect.TypeFor[CeilingParams]()},
	{Name: "conv_data_bf16_128x128", Set: "sm_80", Module: "conv_data_bf16", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_128x64", Set: "sm_80", Module: "conv_data_bf16", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_64x64", Set: "sm_80", Module: "conv_data_bf16", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_bf16_any", Set: "sm_80", Module: "conv_data_bf16", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_128x64", Set: "sm_80", Module: "conv_data_fp32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_64x64", Set: "sm_80", Module: "conv_data_fp32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_fp32_any", Set: "sm_80", Module: "conv_data_fp32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_128x128", Set: "sm_80", Module: "conv_data_tf32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_64x64", Set: "sm_80", Module: "conv_data_tf32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_data_tf32_any", Set: "sm_80", Module: "conv_data_tf32", Params: reflect.TypeFor[ConvDataParams]()},
	{Name: "conv_forward_bf16_128x128", Set: "sm_80", Module: "conv_forward_bf16", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_128x64", Set: "sm_80", Module: "conv_forward_bf16", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_128x8", Set: "sm_80", Module: "conv_forward_bf16", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_64x64", Set: "sm_80", Module: "conv_forward_bf16", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_bf16_any", Set: "sm_80", Module: "conv_forward_bf16", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_128x64", Set: "sm_80", Module: "conv_forward_fp32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_128x8", Set: "sm_80", Module: "conv_forward_fp32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_64x64", Set: "sm_80", Module: "conv_forward_fp32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_fp32_any", Set: "sm_80", Module: "conv_forward_fp32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_128x128", Set: "sm_80", Module: "conv_forward_tf32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_128x8", Set: "sm_80", Module: "conv_forward_tf32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_64x64", Set: "sm_80", Module: "conv_forward_tf32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_forward_tf32_any", Set: "sm_80", Module: "conv_forward_tf32", Params: reflect.TypeFor[ConvForwardParams]()},
	{Name: "conv_sum_phases", Set: "sm_80", Module: "conv_phases", Params: reflect.TypeFor[ConvPhasesParams]()},
	{Name: "conv_sum_shares", Set: "sm_80", Module: "conv_shares", Params: reflect.TypeFor[ConvSharesParams]()},
	{Name: "conv_sum_taps", Set: "sm_80", Module: "conv_taps", Params: reflect.TypeFor[ConvTapsParams]()},
	{Name: "conv_weight_bf16_128x128", Set: "sm_80", Module: "conv_weight_bf16", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_128x64", Set: "sm_80", Module: "conv_weight_bf16", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_128x8", Set: "sm_80", Module: "conv_weight_bf16", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_64x64", Set: "sm_80", Module: "conv_weight_bf16", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_bf16_any", Set: "sm_80", Module: "conv_weight_bf16", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_128x64", Set: "sm_80", Module: "conv_weight_fp32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_128x8", Set: "sm_80", Module: "conv_weight_fp32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_64x64", Set: "sm_80", Module: "conv_weight_fp32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_fp32_any", Set: "sm_80", Module: "conv_weight_fp32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_128x128", Set: "sm_80", Module: "conv_weight_tf32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_128x8", Set: "sm_80", Module: "conv_weight_tf32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_64x64", Set: "sm_80", Module: "conv_weight_tf32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "conv_weight_tf32_any", Set: "sm_80", Module: "conv_weight_tf32", Params: reflect.TypeFor[ConvWeightParams]()},
	{Name: "dropout_any", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "dropout_bf16", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "dropout_f32", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[DropoutParams]()},
	{Name: "embedding_rows", Set: "sm_80", Module: "embedding", Params: reflect.TypeFor[EmbeddingRowsParams]()},
	{Name: "embedding_rows_grad", Set: "sm_80", Module: "embedding", Params: reflect.TypeFor[EmbeddingRowsGradParams]()},
	{Name: "grad_norm", Set: "sm_80", Module: "optimizer", Params: reflect.TypeFor[GradNormParams]()},
	{Name: "guidance", Set: "sm_80", Module: "guide", Params: reflect.TypeFor[GuidanceParams]()},
	{Name: "guidance_scale", Set: "sm_80", Module: "guide", Params: reflect.TypeFor[GuidanceParams]()},
	{Name: "join_any", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "join_bf16", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "join_f32", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[JoinParams]()},
	{Name: "map_add_any", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_add_bf16", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_add_f32", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_any", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_bf16", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_copy_f32", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_round", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_any", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_bf16", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_f32", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_any", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_bf16", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_silu_grad_f32", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "map_widen", Set: "sm_80", Module: "elementwise", Params: reflect.TypeFor[MapParams]()},
	{Name: "mean_grad", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[MeanGradParams]()},
	{Name: "norm_forward_any", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_forward_bf16", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_forward_f32", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormParams]()},
	{Name: "norm_grad_data_any", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_data_bf16", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_data_f32", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradDataParams]()},
	{Name: "norm_grad_sums_any", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_grad_sums_bf16", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_grad_sums_f32", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormGradSumsParams]()},
	{Name: "norm_stats_any", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_bf16", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_f32", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "norm_stats_found", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormFoundParams]()},
	{Name: "norm_stats_merge", Set: "sm_80", Module: "groupnorm", Params: reflect.TypeFor[NormStatsParams]()},
	{Name: "p_sample", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[PSampleParams]()},
	{Name: "p_sample_general", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[PSampleGeneralParams]()},
	{Name: "pseudo_huber", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[PerSampleParams]()},
	{Name: "pseudo_huber_grad", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[PerSampleParams]()},
	{Name: "q_sample", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[QSampleParams]()},
	{Name: "row_sums", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[RowSumsParams]()},
	{Name: "squared_error", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[SquaredErrorParams]()},
	{Name: "squared_error_grad", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[SquaredErrorGradParams]()},
	{Name: "squared_error_grad_wide", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[SquaredErrorGradParams]()},
	{Name: "squared_error_wide", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[SquaredErrorParams]()},
	{Name: "sum_columns_any", Set: "sm_80", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_columns_bf16", Set: "sm_80", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_columns_f32", Set: "sm_80", Module: "reduce", Params: reflect.TypeFor[SumColumnsParams]()},
	{Name: "sum_squares", Set: "sm_80", Module: "optimizer", Params: reflect.TypeFor[SquaresParams]()},
	{Name: "timestep_embedding", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[EmbeddingParams]()},
	{Name: "tma_ceiling", Set: "sm_90a", Module: "tma_ceiling", Params: reflect.TypeFor[TmaCeilingParams]()},
	{Name: "tma_conv_data_16x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_conv_data_32x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_conv_data_8x16", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_conv_data_norm_16x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvNormParams]()},
	{Name: "tma_conv_data_norm_32x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvNormParams]()},
	{Name: "tma_conv_data_norm_8x16", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvNormParams]()},
	{Name: "tma_conv_forward_16x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_conv_forward_32x8", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_conv_forward_8x16", Set: "sm_90a", Module: "tma_conv", Params: reflect.TypeFor[TmaConvParams]()},
	{Name: "tma_weight_1", Set: "sm_90a", Module: "tma_weight", Params: reflect.TypeFor[TmaWeightParams]()},
	{Name: "tma_weight_2", Set: "sm_90a", Module: "tma_weight", Params: reflect.TypeFor[TmaWeightParams]()},
	{Name: "tma_weight_2_joint", Set: "sm_90a", Module: "tma_weight", Params: reflect.TypeFor[TmaWeightParams]()},
	{Name: "tma_weight_3", Set: "sm_90a", Module: "tma_weight", Params: reflect.TypeFor[TmaWeightParams]()},
	{Name: "tma_weight_3_joint", Set: "sm_90a", Module: "tma_weight", Params: reflect.TypeFor[TmaWeightParams]()},
	{Name: "upsample_any", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_bf16", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_f32", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_any", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_bf16", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "upsample_grad_f32", Set: "sm_80", Module: "resample", Params: reflect.TypeFor[DoubleParams]()},
	{Name: "vlb", Set: "sm_80", Module: "vlb", Params: reflect.TypeFor[VlbParams]()},
	{Name: "vlb_grad", Set: "sm_80", Module: "vlb", Params: reflect.TypeFor[VlbParams]()},
	{Name: "weigh", Set: "sm_80", Module: "loss", Params: reflect.TypeFor[PerSampleParams]()},
	{Name: "x0_limit", Set: "sm_80", Module: "diffuse", Params: reflect.TypeFor[X0LimitParams]()},
}
