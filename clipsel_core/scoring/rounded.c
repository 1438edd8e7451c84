/* Sums of 2^(scale l . r + row term + column term) of all pairs of rows but the own ones, l and r in bfloat16.

   A block of ROWS by 16 VECTORS products is accumulated in registers in float32 and reduced there: no product ever
   reaches memory. Every sum has one order, so the bits are the same on every CPU and from every compiler. */

#include <immintrin.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx512f,avx512bf16")))
#define ROWS 6
#define VECTORS 4
#define SIDE (16 * VECTORS)

/* 2^x, off by less than 3e-7 of it: the nearest power of two times a polynomial of the rest, in [-1/2, 1/2]. */
TARGET static inline __m512 exp2_of(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 rest = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(1.32647203e-03f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(9.67151299e-03f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(5.55073358e-02f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(2.40222424e-01f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(6.93147004e-01f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/* total[i][v] = the products of the block's ROWS rows with the panel's SIDE rows; depth counts pairs of dimensions. */
TARGET static inline __attribute__((always_inline)) void multiply(const uint32_t *block, const uint32_t *panel,
                                                                  int64_t depth, __m512 total[ROWS][VECTORS]) {
    for (int64_t k = 0; k < depth; k++) {
        __m512bh right[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) right[v] = (__m512bh)_mm512_loadu_si512(panel + k * SIDE + 16 * v);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            const __m512bh left = (__m512bh)_mm512_set1_epi32((int)block[k * ROWS + i]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) total[i][v] = _mm512_dpbf16_ps(total[i][v], left, right[v]);
        }
    }
}

/* The lanes of 16 columns from `column` on that lie below `columns` and are not `own`. */
static inline __mmask16 lanes(int64_t column, int64_t columns, int64_t own) {
    const int64_t count = columns - column, place = own - column;
    const unsigned inside = count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1;
    return (__mmask16)(place >= 0 && place < 16 ? inside & ~(1u << place) : inside);
}

/* left: blocks of ROWS rows, right: panels of SIDE rows; both as (depth, rows of it) pairs of bfloat16, zeros past the
   last row. first: the column that is row 0's own. row (rows) is added to, column (columns) is written. */
TARGET void sum_exp2(const uint32_t *left, const uint32_t *right, int64_t rows, int64_t columns, int64_t depth,
                     int64_t first, float scale, const float *row_term, const float *column_term, double *row,
                     float *column) {
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t c = 0; c < columns; c += SIDE) {
        __m512 down[VECTORS], term[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            down[v] = _mm512_setzero_ps();
            term[v] = _mm512_maskz_loadu_ps(lanes(c + 16 * v, columns, -1), column_term + c + 16 * v);
        }
        for (int64_t r = 0; r < rows; r += ROWS) {
            __m512 total[ROWS][VECTORS];
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) total[i][v] = _mm512_setzero_ps();
            multiply(left + r * depth, right + c * depth, depth, total);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                if (r + i >= rows) break;
                const __m512 added = _mm512_set1_ps(row_term[r + i]);
                __m512 across = _mm512_setzero_ps();
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) {
                    const __m512 x = _mm512_fmadd_ps(total[i][v], by, _mm512_add_ps(term[v], added));
                    const __m512 e = _mm512_maskz_mov_ps(lanes(c + 16 * v, columns, first + r + i), exp2_of(x));
                    across = _mm512_add_ps(across, e);
                    down[v] = _mm512_add_ps(down[v], e);
                }
                row[r + i] += _mm512_reduce_add_ps(across);
            }
        }
        for (int v = 0; v < VECTORS; v++)
            _mm512_mask_storeu_ps(column + c + 16 * v, lanes(c + 16 * v, columns, -1), down[v]);
    }
}
