/* Attention of many queries, each to all keys or to those it sees; bfloat16, summed in float32.
 *
 * Two products of matrices with a softmax between them, eight queries at a time, so that scores stay in a core's own
 * caches; keys that none of the eight sees, beyond the last one, are left out. For processors that multiply pairs of
 * bfloat16; of those that multiply matrices of them, the library makes use. */
#include "pairs.h"

int attends_many(void) { return BEATS_LIBRARY; }

#if MULTIPLIES_PAIRS

struct call {
  const uint16_t *query, *key, *value; /* [batch, heads, queries or keys, dim], the last without gaps */
  uint16_t *y;                         /* as query */
  const uint8_t *seen;                 /* [batch, queries, keys], the last without gaps; null where all is seen */
  float *work;                         /* for each thread */
  long heads, queries, keys, dim;
  long of_query[3], of_key[3], of_value[3], of_y[3], of_seen[2];
  float scale;
};

static inline long panel_width(long columns, long n) { return columns - n < PANEL ? columns - n : PANEL; }

/* Of B's pairs and columns, only so many. */
static void multiply(const uint16_t *const *a, const uint32_t *b, long pairs, long some_pairs, float *c, long columns,
                     long some_columns) {
  for (long n = 0; n < some_columns; n += PANEL)
    tile(a, b + n * pairs, some_pairs, panel_width(columns, n) / LANES, 1, c + n, columns, 0);
}

/* Keys as columns: pairs of dimensions. */
static void pack_keys(const uint16_t *key, long gap, long keys, long dim, uint32_t *b) {
  const long columns = whole(keys), pairs = dim / 2;
  for (long k = 0; k < keys; k += LANES) {
    const long n = k / PANEL * PANEL;
    pack_rows(key + k * gap, gap, keys - k, pairs, b + n * pairs + (k - n), panel_width(columns, n) / LANES);
  }
}

/* Dimensions as columns: pairs of keys. */
static void pack_values(const uint16_t *value, long gap, long keys, long dim, uint32_t *b) {
  const long columns = whole(dim), pairs = whole(keys) / 2;
  memset(b, 0, columns * pairs * sizeof *b);
  for (long n = 0; n < columns; n += PANEL) {
    const long width = panel_width(columns, n), real = dim - n < width ? dim - n : width;
    for (long k = 0; k < keys; k++) {
      uint16_t *to = (uint16_t *)(b + n * pairs + k / 2 * width) + k % 2;
      for (long d = 0; d < real; d++) to[2 * d] = value[k * gap + n + d];
    }
  }
}

/* Which of the keys from k on are seen, one bit each. */
static inline __mmask16 sees(const uint8_t *seen, long keys, long k) {
  const __mmask16 real = some(keys - k);
  if (!seen) return real;
  const __m128i bytes = _mm_maskz_loadu_epi8(real, seen + k);
  return _mm_test_epi8_mask(bytes, bytes);
}

/* Scores of a query as weights, and what they are to be multiplied by; 0 where nothing is seen. Scores are scaled once:
 * none may come out above the greatest, by rounding, when it is taken off. */
static float weigh(float *score, const uint8_t *seen, long keys, float scale, uint16_t *weight) {
  const __m512 times = _mm512_set1_ps(scale), nothing = _mm512_set1_ps(-INFINITY);
  __m512 most = nothing, sum = _mm512_setzero_ps();
  for (long k = 0; k < keys; k += LANES) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(score + k), times);
    _mm512_storeu_ps(score + k, scaled);
    most = _mm512_max_ps(most, _mm512_mask_mov_ps(nothing, sees(seen, keys, k), scaled));
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  for (long k = 0; k < keys; k += LANES) {
    const __m512 above = _mm512_sub_ps(_mm512_loadu_ps(score + k), top);
    const __m512 y = _mm512_maskz_mov_ps(sees(seen, keys, k), power(above));
    sum = _mm512_add_ps(sum, y);
    round_some(y, weight + k, 0xffff);
  }
  const float all = _mm512_reduce_add_ps(sum);
  return all == 0 ? 0 : 1 / all;
}

/* One more than the last key that any of some queries sees. */
static long last_seen(const uint8_t *const *seen, long keys) {
  long last = 0;
  for (int i = 0; i < ROWS; i++) {
    long k = keys;
    while (k > last && !seen[i][k - 1]) k--;
    last = k;
  }
  return last;
}

/* Floats of working memory that a thread needs. */
long attend_many_work(long keys, long dim) {
  return whole(keys) * (dim / 2) + whole(keys) / 2 * whole(dim) + ROWS * (whole(keys) + whole(keys) / 2 + whole(dim));
}

static void heads(const void *data, int thread, long begin, long end) {
  const struct call *c = data;
  const long keys = whole(c->keys), dim = whole(c->dim);
  float *work = c->work + thread * attend_many_work(c->keys, c->dim);
  uint32_t *key = (uint32_t *)work, *value = key + keys * (c->dim / 2);
  float *score = (float *)(value + keys / 2 * dim), *mean = score + ROWS * keys;
  uint16_t *weight = (uint16_t *)(mean + ROWS * dim);
  for (long unit = begin; unit < end; unit++) {
    const long talk = unit / c->heads, head = unit % c->heads;
    const uint16_t *query = c->query + talk * c->of_query[0] + head * c->of_query[1];
    uint16_t *y = c->y + talk * c->of_y[0] + head * c->of_y[1];
    pack_keys(c->key + talk * c->of_key[0] + head * c->of_key[1], c->of_key[2], c->keys, c->dim, key);
    pack_values(c->value + talk * c->of_value[0] + head * c->of_value[1], c->of_value[2], c->keys, c->dim, value);
    for (long first = 0; first < c->queries; first += ROWS) {
      const uint16_t *row[ROWS], *weights[ROWS];
      const uint8_t *seen[ROWS] = {0};
      float share[ROWS];
      for (int i = 0; i < ROWS; i++) { /* of the last rows some are there twice */
        const long at = first + i < c->queries ? first + i : c->queries - 1;
        row[i] = query + at * c->of_query[2], weights[i] = weight + i * keys;
        if (c->seen) seen[i] = c->seen + talk * c->of_seen[0] + at * c->of_seen[1];
      }
      const long reach = c->seen ? last_seen(seen, c->keys) : c->keys;
      multiply(row, key, c->dim / 2, c->dim / 2, score, keys, reach);
      for (int i = 0; i < ROWS; i++) share[i] = weigh(score + i * keys, seen[i], reach, c->scale, weight + i * keys);
      multiply(weights, value, keys / 2, whole(reach) / 2, mean, dim, dim);
      for (int i = 0; i < ROWS && first + i < c->queries; i++)
        for (long k = 0; k < c->dim; k++)
          y[(first + i) * c->of_y[2] + k] = share[i] == 0 ? 0 : round_one(mean[i * dim + k] * share[i]);
    }
  }
}

/* `gaps` as the fields of the call have them, one after the other. */
void attend_many(const uint16_t *query, const uint16_t *key, const uint16_t *value, const uint8_t *seen, float *work,
                 uint16_t *y, long batch, long of_heads, long queries, long keys, long dim, const long *gaps,
                 float scale, int threads) {
  struct call c = {query, key, value, y, seen, work, of_heads, queries, keys, dim, {0}, {0}, {0}, {0}, {0}, scale};
  memcpy(c.of_query, gaps, sizeof c.of_query), memcpy(c.of_key, gaps + 3, sizeof c.of_key);
  memcpy(c.of_value, gaps + 6, sizeof c.of_value), memcpy(c.of_y, gaps + 9, sizeof c.of_y);
  memcpy(c.of_seen, gaps + 12, sizeof c.of_seen);
  share_out(heads, &c, batch * of_heads, threads);
}

#endif
