/* y = x W' + bias for many rows of x; bfloat16, summed in float32.
 *
 * W lies as it was given, and is read once for a thousand rows or fewer: x is what is packed, the smaller of the two.
 * So the product comes out with y's columns in rows, and is turned over as it is rounded. */
#include "pairs.h"

int multiplies_many(void) { return BEATS_LIBRARY; }

#if MULTIPLIES_PAIRS

#define BLOCK 48  /* columns of y whose sums a core keeps in its own caches; a multiple of ROWS and of LANES */
#define DEPTH 768 /* steps, at most, that a core reads of a panel before it takes the next rows of W */
#define MOST 1024 /* rows of x at a time, which bounds the working memory */

struct call {
  const uint16_t *x, *weight, *bias; /* [rows, in], [out, in] with `stride` between its rows, [out] or null */
  uint16_t *y;                       /* [rows, out] */
  uint32_t *packed;                  /* x, as pairs.h has it */
  float *sums;                       /* for each thread */
  long rows, in, out, stride;
  int pairs; /* of each row at a time */
};

/* Two pairs at a time where less of a vector is left empty then, or the panel would be a single vector. */
static inline int pairs_of(long rows, long in) {
  return in % 4 == 0 && (rows <= LANES || (rows - 1) % LANES < LANES / 2) ? 2 : 1;
}

static inline long rows_of(const struct call *c) { return LANES / c->pairs; }
static inline long steps_of(const struct call *c) { return c->in / (2 * c->pairs); }
static inline long width_of(const struct call *c) { return (c->rows + rows_of(c) - 1) / rows_of(c); }

/* Panels of about the same width, of which this is where one begins, in vectors. */
static inline long begin_of(const struct call *c, long panel) {
  const long vectors = width_of(c);
  return vectors * panel / ((vectors + VECTORS - 1) / VECTORS);
}

/* Vectors [begin, end) of x's rows. */
static void pack(const void *data, int thread, long begin, long end) {
  (void)thread;
  const struct call *c = data;
  const long steps = steps_of(c);
  long panel = 0, first = 0, next = begin_of(c, 1);
  for (long v = begin; v < end; v++) {
    while (v >= next) first = next, next = begin_of(c, ++panel + 1);
    const long row = v * rows_of(c);
    uint32_t *to = c->packed + (first * steps + (v - first)) * LANES;
    if (c->pairs == 1)
      pack_rows(c->x + row * c->in, c->in, c->rows - row, steps, to, next - first);
    else
      pack_rows_twofold(c->x + row * c->in, c->in, c->rows - row, steps, to, next - first);
  }
}

/* Columns [begin, begin + width) of y, before the sums are rounded. */
static inline __attribute__((always_inline)) void multiply(const struct call *c, int pairs, long begin, long width,
                                                           float *sums) {
  const long all = steps_of(c), parts = (all + DEPTH - 1) / DEPTH;
  for (long part = 0; part < parts; part++) {
    const long from = all * part / parts, steps = all * (part + 1) / parts - from;
    for (long panel = 0, first = 0, next; first < width_of(c); panel++, first = next) {
      next = begin_of(c, panel + 1);
      const long wide = next - first;
      const uint32_t *x = c->packed + (first * all + from * wide) * LANES;
      for (long n = 0; n < width; n += ROWS) {
        const uint16_t *w[ROWS];
        for (int i = 0; i < ROWS; i++) { /* of the last columns one is there several times */
          const long at = n + i < width ? n + i : width - 1;
          w[i] = c->weight + (begin + at) * c->stride + 2 * pairs * from;
        }
        tile(w, x, steps, wide, pairs, sums + (first * BLOCK + n * wide) * LANES, wide * LANES, part > 0);
      }
    }
  }
}

/* Sums of columns [begin, begin + width) with their bias, turned over. */
static void finish(const struct call *c, long begin, long width, const float *sums) {
  for (long n = 0; n < width; n += LANES) {
    const __mmask16 real = some(width - n);
    const __m512 bias = c->bias ? widen_some(c->bias + begin + n, real) : _mm512_setzero_ps();
    for (long panel = 0, first = 0, next; first < width_of(c); panel++, first = next) {
      next = begin_of(c, panel + 1);
      for (long v = first; v < next; v++) {
        const float *from = sums + (first * BLOCK + n * (next - first) + (v - first)) * LANES;
        const long row = v * rows_of(c);
        __m512i r[LANES];
        for (int i = 0; i < LANES; i++) r[i] = _mm512_loadu_si512(from + i * (next - first) * LANES);
        transpose(r);
        for (int i = 0; i < rows_of(c) && row + i < c->rows; i++) {
          __m512 sum = _mm512_castsi512_ps(r[c->pairs * i]);
          if (c->pairs == 2) sum = _mm512_add_ps(sum, _mm512_castsi512_ps(r[2 * i + 1]));
          round_some(_mm512_add_ps(sum, bias), c->y + (row + i) * c->out + begin + n, real);
        }
      }
    }
  }
}

/* Vectors [begin, end) of y's columns. */
static void span(const void *data, int thread, long begin, long end) {
  const struct call *c = data;
  float *sums = c->sums + thread * BLOCK * LANES * width_of(c);
  const long last = end * LANES < c->out ? end * LANES : c->out;
  for (long first = begin * LANES; first < last; first += BLOCK) {
    const long width = last - first < BLOCK ? last - first : BLOCK;
    if (c->pairs == 1)
      multiply(c, 1, first, width, sums);
    else
      multiply(c, 2, first, width, sums);
    finish(c, first, width, sums);
  }
}

/* Floats of working memory for so many rows: x, padded, and the sums, of which two may make one. */
long linear_many_work(long rows, long in, int threads) {
  const long most = whole(rows < MOST ? rows : MOST);
  return most * (in / 2) + 2 * most * threads * BLOCK;
}

/* `in` is even. */
void linear_many(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, float *work, uint16_t *y, long rows,
                 long in, long out, long stride, int threads) {
  const long parts = (rows + MOST - 1) / MOST;
  for (long part = 0; part < parts; part++) { /* of about the same size: each reads all weights */
    const long row = rows * part / parts, these = rows * (part + 1) / parts - row;
    uint32_t *packed = (uint32_t *)work;
    float *sums = work + whole(these) * (in / 2);
    const int pairs = pairs_of(these, in);
    struct call c = {x + row * in, weight, bias, y + row * out, packed, sums, these, in, out, stride, pairs};
    share_out(pack, &c, width_of(&c), threads);
    share_out(span, &c, vectors_of(out), threads);
  }
}

#endif
