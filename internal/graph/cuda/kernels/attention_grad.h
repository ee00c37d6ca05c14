// What both kernels of attention's gradient take. For each image and head, with S = q k^T / sqrt(D), P = softmax(S),
//
//   dP = dout v^T          dS = P (dP - mean)/sqrt(D), where mean is the sum over the row of P dP
//   dq = dS k              dk = dS^T q              dv = P^T dout
//
// attention_queries.h computes scores by rows of queries, which makes the statistics of the rows and dq;
// attention_keys.h computes them again by rows of keys, which makes dk and dv. So no matrix of scores is in global
// memory, and every sum has one owner and one order.
#pragma once

#include "attention_tiles.h"

// statistics of a query, [sequences][3][L]: the greatest score times log2(e)/sqrt(D), one over the sum of
// exp2(score*log2(e)/sqrt(D) - that), and mean.
constexpr int attention_statistics = 3;

struct AttentionGradParams {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
  AttentionTensor dout;
  AttentionTensor dq;
  AttentionTensor dk;
  AttentionTensor dv;
  AttentionShape shape;
  float* statistics;
  int slices;  // of the channels
  float scale;
  float log2_scale;
};
