/* The activations between two linear layers, x times a sigmoid, in one pass: x sigmoid(x) is SiLU, and GELU with tanh
 * is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), as 1 + tanh(z) = 2 sigmoid(2 z). bfloat16, reckoned in float32. */
#include "pairs.h"

int activates(void) { return MULTIPLIES_PAIRS; }

#if MULTIPLIES_PAIRS

#define UNIT 4096 /* numbers that a thread takes at a time */

struct call {
  const uint16_t *x;
  uint16_t *y;
  long size;
  int gelu;
};

static inline __m512 sigmoid(__m512 z) {
  const __m512 one = _mm512_set1_ps(1), far = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(z));
  const __m512 less = power(far), more = _mm512_add_ps(one, less);
  const __mmask16 negative = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mask_mov_ps(one, negative, less), more);
}

static void units(const void *data, int thread, long begin, long end) {
  (void)thread;
  const struct call *c = data;
  const __m512 one = _mm512_set1_ps(1), cubic = _mm512_set1_ps(0.044715f), twice = _mm512_set1_ps(1.5957691216f);
  const long last = end * UNIT < c->size ? end * UNIT : c->size;
  for (long k = begin * UNIT; k < last; k += LANES) {
    const __mmask16 real = some(last - k);
    const __m512 x = widen_some(c->x + k, real);
    __m512 z = x;
    if (c->gelu) z = _mm512_mul_ps(_mm512_mul_ps(twice, x), _mm512_fmadd_ps(cubic, _mm512_mul_ps(x, x), one));
    round_some(_mm512_mul_ps(x, sigmoid(z)), c->y + k, real);
  }
}

/* GELU, or else SiLU. */
void activate(const uint16_t *x, uint16_t *y, long size, int gelu, int threads) {
  struct call c = {x, y, size, gelu};
  share_out(units, &c, (size + UNIT - 1) / UNIT, threads);
}

#endif
