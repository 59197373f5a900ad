/* Products of matrices on processors that multiply pairs of bfloat16 and sum them in float32 (AVX-512 BF16): C = A B,
 * where A lies in rows as it was given, and B is packed.
 *
 * B's columns stand in panels of a few vectors, and in a panel one after the other its pairs of rows. Of 16 columns a
 * vector holds one pair each, or of 8 columns two: then two sums make one. */
#pragma once

#include "lanes.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MULTIPLIES_PAIRS 1
#else
#define MULTIPLIES_PAIRS 0
#endif

/* Where the processor has a unit for matrices, the library makes use of it, and is faster than any of this. */
#if MULTIPLIES_PAIRS && !defined(__AMX_BF16__)
#define BEATS_LIBRARY 1
#else
#define BEATS_LIBRARY 0
#endif

#if MULTIPLIES_PAIRS

#define ROWS 8    /* of A at a time */
#define VECTORS 3 /* columns of a panel at most, in vectors: with ROWS, 24 sums in 32 registers */
#define PANEL (VECTORS * LANES)
#define LEAST -105 /* an exponent whose power is 0 in float32 */

static inline long vectors_of(long size) { return (size + LANES - 1) / LANES; }
static inline long whole(long size) { return vectors_of(size) * LANES; }

/* The first `count` of a vector's numbers, from none to all. */
static inline __mmask16 some(long count) { return count >= LANES ? 0xffff : count > 0 ? (1u << count) - 1 : 0; }

static inline __attribute__((always_inline)) __m512bh repeat(const uint16_t *at, int pairs) {
  uint32_t one;
  uint64_t two;
  memcpy(&one, at, sizeof one);
  if (pairs == 1) return (__m512bh)_mm512_set1_epi32(one);
  memcpy(&two, at, sizeof two);
  return (__m512bh)_mm512_set1_epi64(two);
}

static inline __attribute__((always_inline)) void sized_tile(const uint16_t *const *a, const uint32_t *panel,
                                                             long steps, int vectors, int pairs, float *c, long gap,
                                                             int onto) {
  __m512 sum[ROWS][VECTORS];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < vectors; j++) sum[i][j] = onto ? _mm512_loadu_ps(c + i * gap + j * LANES) : _mm512_setzero_ps();
  for (long step = 0; step < steps; step++, panel += vectors * LANES) {
    __m512bh column[VECTORS];
    for (int j = 0; j < vectors; j++) column[j] = (__m512bh)_mm512_loadu_si512(panel + j * LANES);
    for (int i = 0; i < ROWS; i++) {
      const __m512bh row = repeat(a[i] + 2 * pairs * step, pairs);
      for (int j = 0; j < vectors; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], row, column[j]);
    }
  }
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < vectors; j++) _mm512_storeu_ps(c + i * gap + j * LANES, sum[i][j]);
}

/* ROWS rows of A with one panel of B, in steps of one pair or two; C's rows are `gap` apart, and what they hold is
 * added to if `onto`. */
static inline __attribute__((always_inline)) void tile(const uint16_t *const *a, const uint32_t *panel, long steps,
                                                       long vectors, int pairs, float *c, long gap, int onto) {
  switch (vectors) { /* constants, so that all sums are registers */
    case 1: sized_tile(a, panel, steps, 1, pairs, c, gap, onto); break;
    case 2: sized_tile(a, panel, steps, 2, pairs, c, gap, onto); break;
    case 3: sized_tile(a, panel, steps, 3, pairs, c, gap, onto); break;
  }
}

/* 16 vectors of 16 numbers, columns to rows. */
static inline void transpose(__m512i r[LANES]) {
  __m512i t[LANES];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      t[i + 4 * j] = _mm512_shuffle_i32x4(r[i + 8 * j], r[i + 8 * j + 4], 0x88);
      t[i + 4 * j + 8] = _mm512_shuffle_i32x4(r[i + 8 * j], r[i + 8 * j + 4], 0xdd);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      r[i + 4 * j] = _mm512_shuffle_i32x4(t[i + 8 * j], t[i + 8 * j + 4], 0x88);
      r[i + 4 * j + 8] = _mm512_shuffle_i32x4(t[i + 8 * j], t[i + 8 * j + 4], 0xdd);
    }
}

/* Up to 16 rows, `gap` apart, as one vector of columns in a panel of `vectors`; 0 beyond the last. */
static inline void pack_rows(const uint16_t *rows, long gap, long count, long pairs, uint32_t *to, long vectors) {
  for (long p = 0; p < pairs; p += LANES) {
    __m512i r[LANES];
    for (int i = 0; i < LANES; i++)
      r[i] = i < count ? _mm512_maskz_loadu_epi32(some(pairs - p), rows + i * gap + 2 * p) : _mm512_setzero_si512();
    transpose(r);
    for (int i = 0; i < LANES && p + i < pairs; i++) _mm512_storeu_si512(to + (p + i) * vectors * LANES, r[i]);
  }
}

/* The same of up to 8 rows, two pairs of each at a time. */
static inline void pack_rows_twofold(const uint16_t *rows, long gap, long count, long steps, uint32_t *to,
                                     long vectors) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (long s = 0; s < steps; s += LANES) {
    const long left = 2 * (steps - s);
    __m512i r[LANES];
    for (int i = 0; i < LANES / 2; i++) {
      const uint16_t *from = rows + i * gap + 4 * s;
      const __m512i low = i < count ? _mm512_maskz_loadu_epi32(some(left), from) : _mm512_setzero_si512();
      const __m512i high =
          i < count ? _mm512_maskz_loadu_epi32(some(left - LANES), from + 2 * LANES) : _mm512_setzero_si512();
      r[2 * i] = _mm512_permutex2var_epi32(low, even, high);
      r[2 * i + 1] = _mm512_permutex2var_epi32(low, odd, high);
    }
    transpose(r);
    for (int i = 0; i < LANES && s + i < steps; i++) _mm512_storeu_si512(to + (s + i) * vectors * LANES, r[i]);
  }
}

/* e to the power of what is not above 0. */
static inline __m512 power(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(LEAST), x); /* in this order what is no number stays none */
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 y = _mm512_set1_ps(1.0f / 120);
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 24));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 6));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.5f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1));
  return _mm512_scalef_ps(y, n);
}

static inline __m512 widen_some(const uint16_t *from, __mmask16 which) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, from)), 16));
}

static inline void round_some(__m512 value, uint16_t *to, __mmask16 which) {
  _mm256_mask_storeu_epi16(to, which, (__m256i)_mm512_cvtneps_pbh(value));
}

#endif
