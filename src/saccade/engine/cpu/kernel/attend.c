/* Attention of a few queries over the keys and values of a slot, float32 or bfloat16, summed in float32.
 *
 * One token at a time, a library's kernel spends its time on getting ready: keys are few, and are read once here, where
 * they stand. What a query does not see is not read. */
#include "lanes.h"

struct call {
  const void *query;   /* [batch, heads, rows, dim] */
  const void *key;     /* [batch, heads, length, dim], the last without gaps, the others `of_keys` apart */
  const void *value;   /* as key */
  const uint8_t *seen; /* [batch, length], `of_seen` between conversations; the same for all heads and rows */
  float *work;         /* [batch, heads, rows, length + dim] */
  void *y;             /* [batch, heads, rows, dim] */
  long heads, rows, dim, length;
  long of_keys[3], of_values[3], of_seen;
  float scale;
  int half; /* whether queries, keys, values and y are bfloat16 */
};

static inline __attribute__((always_inline)) floats lanes_at(const void *from, long at, int half) {
  return half ? widen((const uint16_t *)from + at) : load((const float *)from + at);
}

static inline __attribute__((always_inline)) float one_at(const void *from, long at, int half) {
  return half ? widen_one(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

static inline __attribute__((always_inline)) float dot(const void *a, long i, const void *b, long j, long dim,
                                                       int half) {
  floats sum = {0};
  long k = 0;
  for (; k + LANES <= dim; k += LANES) sum += lanes_at(a, i + k, half) * lanes_at(b, j + k, half);
  float all = total(sum);
  for (; k < dim; k++) all += one_at(a, i + k, half) * one_at(b, j + k, half);
  return all;
}

/* Query number `unit`, counted through conversations, heads and rows. `half` is constant where this is inlined. Where
 * nothing is seen, the mean is 0. */
static inline __attribute__((always_inline)) void one_query(const struct call *c, long unit, int half) {
  const long head = unit / c->rows % c->heads, talk = unit / c->rows / c->heads;
  const uint8_t *seen = c->seen + talk * c->of_seen;
  const long keys = talk * c->of_keys[0] + head * c->of_keys[1];
  const long values = talk * c->of_values[0] + head * c->of_values[1];
  float *weights = c->work + unit * (c->length + c->dim), *mean = weights + c->length;

  float most = -INFINITY, sum = 0;
  for (long l = 0; l < c->length; l++)
    if (seen[l]) {
      weights[l] = c->scale * dot(c->query, unit * c->dim, c->key, keys + l * c->of_keys[2], c->dim, half);
      most = weights[l] > most ? weights[l] : most;
    }
  memset(mean, 0, c->dim * sizeof *mean);
  for (long l = 0; l < c->length; l++)
    if (seen[l]) {
      const float weight = expf(weights[l] - most);
      for (long k = 0; k < c->dim; k++) mean[k] += weight * one_at(c->value, values + l * c->of_values[2] + k, half);
      sum += weight;
    }
  const float share = sum == 0 ? 0 : 1 / sum;
  for (long k = 0; k < c->dim; k++)
    if (half)
      ((uint16_t *)c->y)[unit * c->dim + k] = round_one(mean[k] * share);
    else
      ((float *)c->y)[unit * c->dim + k] = mean[k] * share;
}

static void queries(const void *data, int thread, long begin, long end) {
  (void)thread;
  const struct call *c = data;
  for (long unit = begin; unit < end; unit++)
    if (c->half)
      one_query(c, unit, 1);
    else
      one_query(c, unit, 0);
}

void attend(const void *query, const void *key, const void *value, const uint8_t *seen, float *work, void *y,
            long batch, long heads, long rows, long dim, long length, long keys_talk, long keys_head, long keys_place,
            long values_talk, long values_head, long values_place, long seen_talk, float scale, int half, int threads) {
  struct call c = {query, key, value, seen, work, y, heads, rows, dim, length, {keys_talk, keys_head, keys_place},
                   {values_talk, values_head, values_place}, seen_talk, scale, half};
  share_out(queries, &c, batch * heads * rows, threads);
}
