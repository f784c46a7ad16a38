/* The kernels of the generated code. Sections begin with a line "//@ name: required sections"; the generator copies
   those that a model uses. All arithmetic is that of TFLite Micro's reference kernels, see docs/c99.md.

   "//@ name (order): required sections" declares the order in which a kernel reads its input x and writes its output y.
   The arena planner overlaps y with x by this word, so all variants of the kernel, for all processors, must keep it:

   values    After value n of y is written, values 0 to n of x are not read again. y may start at x or before.
   pixels    A pixel of y is written after everything it needs of x has been read, or channel by channel, if each needs
             only that channel of x; then the next pixel. y must start so far before x that no pixel of y overwrites
             what later pixels need.
   channels  A channel of y is written after the same channel of x, used by no other, has been read. y may be x.

   Without a word, y must not overlap x. */
//@ base:
/* What the code relies on. A compiler that does otherwise refuses a size of -1; int8_t implies bytes of 8 bits. */
typedef char int_has_32_bits[sizeof(int) == sizeof(int32_t) ? 1 : -1];
typedef char right_shifts_keep_the_sign[(-1 >> 1) == -1 ? 1 : -1];
typedef char conversions_to_signed_wrap[(int32_t)0xffffffffu == -1 ? 1 : -1];

/* Attributes of constants (weights, biases, tables) and of the arena, such as a section of their own */
#ifndef EDGECNN_WEIGHTS
#define EDGECNN_WEIGHTS
#endif
#ifndef EDGECNN_ARENA
#define EDGECNN_ARENA
#endif

#if defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN) && !defined(PLAIN_C)
#define HELIUM 1 /* Cortex-M55, M85 and the like: vectors of sixteen bytes */
/* GCC 12 moves a store of bytes behind a vector load of the same bytes, and takes gather loads and scatter stores for
   accesses to the elements at their base only. It moves neither beyond a call, nor beyond SETTLE. */
#define LAYER __attribute__((noinline)) static
#define SETTLE() __asm__ volatile("" : : : "memory")
#else
#define LAYER static
#endif
#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(4)))
#else
#define ALIGNED
#endif

/* Without optimisation there are too few registers; use -DPLAIN_C if other flags reserve registers. */
#if defined(__ARM_FEATURE_DSP) && defined(__OPTIMIZE__) && !defined(__ARM_BIG_ENDIAN) && !defined(PLAIN_C)
#define DUAL_MAC 1 /* Cortex-M4, M7, M33 and the like: two multiply-accumulates in one instruction */
typedef uint32_t __attribute__((may_alias)) word;
typedef uint32_t __attribute__((may_alias, aligned(1))) unaligned_word;

/* bytes 0 and 2, or 1 and 3, as two int16 */
__attribute__((unused)) static inline uint32_t even_bytes(uint32_t value)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(value));
    return result;
}

__attribute__((unused)) static inline uint32_t odd_bytes(uint32_t value)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(value));
    return result;
}

/* sum + low(a) * low(b) + high(a) * high(b) of int16 halves */
__attribute__((unused)) static inline uint32_t mac_2(uint32_t a, uint32_t b, uint32_t sum)
{
    uint32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#endif
#if defined(__thumb__) && !defined(__thumb2__) && defined(__OPTIMIZE__) && !defined(__ARM_BIG_ENDIAN) && !defined(PLAIN_C)
#define FEW_REGISTERS 1 /* Cortex-M0 and the like */
#endif
//@ requantize: base
/* value * multiplier / 2^(31 + shift) + zero with gemmlowp's two roundings: to nearest with halves up, then with halves
   away from zero. The generator has checked that nothing overflows: |value| < 2^30, 1 <= shift <= 22. */
static inline int32_t requantize(int32_t value, int32_t multiplier, int32_t shift, int32_t zero)
{
#ifdef DUAL_MAC
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value * 2), "r"(multiplier));
#else
    const int32_t high = (int32_t)(((int64_t)value * multiplier + ((int32_t)1 << 30)) >> 31);
#endif
    return (high + (high < 0 ? -1 : 0) + (2 * zero + 1) * ((int32_t)1 << (shift - 1))) >> shift;
}
//@ requantize_any: base
/* As requantize below, for values that would overflow there, or shifts outside of 1 to 22: -64 - shift encodes a
   shift to the left, or to the right if negative. */
static int32_t requantize_wide(int32_t value, int32_t multiplier, int32_t shift, int32_t zero)
{
    const int32_t left = -64 - shift, right = left < 0 ? -left : 0;
    const uint32_t shifted = (uint32_t)value << (left > 0 ? left : 0), mask = ((uint32_t)1 << right) - 1;
    int32_t high = (int32_t)(((int64_t)(int32_t)shifted * multiplier + ((int32_t)1 << 30)) >> 31);
    high = (high >> right) + (((uint32_t)high & mask) > (mask >> 1) + (high < 0));
    high = high > 0x7fffff00 ? 0x7fffff00 : high < -0x7fffff00 ? -0x7fffff00 : high;
    return high + zero;
}

/* value * multiplier / 2^(31 + shift) + zero with gemmlowp's two roundings: to nearest with halves up, then with halves
   away from zero. The generator has checked that nothing overflows: |value| < 2^30, 1 <= shift <= 22. */
static inline int32_t requantize(int32_t value, int32_t multiplier, int32_t shift, int32_t zero)
{
    int32_t high;
    if (shift < 0)
        return requantize_wide(value, multiplier, shift, zero);
#ifdef DUAL_MAC
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value * 2), "r"(multiplier));
#else
    high = (int32_t)(((int64_t)value * multiplier + ((int32_t)1 << 30)) >> 31);
#endif
    return (high + (high < 0 ? -1 : 0) + (2 * zero + 1) * ((int32_t)1 << (shift - 1))) >> shift;
}
//@ clamp: base
static inline int8_t clamp(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return (int8_t)(value > high ? high : value);
}
//@ clamp_full: base
/* Every layer of this model has the limits of int8. */
static inline int8_t clamp(int32_t value, int32_t low, int32_t high)
{
    (void)low;
    (void)high;
#ifdef DUAL_MAC
    __asm__("ssat %0, #8, %0" : "+r"(value) : : "cc");
    return (int8_t)value;
#else
    value = value < -128 ? -128 : value;
    return (int8_t)(value > 127 ? 127 : value);
#endif
}
//@ conv_2d_settings: base
struct conv_2d {
    const int8_t *weights;     /* taps of each output, in fours in the order 0 2 1 3, padded with zeros */
    const int32_t *bias;       /* per output, minus the input's zero point times the sum of its weights */
    const int32_t *multiplier; /* per output */
    const int8_t *shift;       /* for each output */
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
    int32_t in_zero, out_zero, low, high;
};
//@ conv_2d (pixels): conv_2d_settings requantize clamp
/* The inputs under the kernel for two pixels are two columns, pair by pair: taps 0 and 1 of the first, then of the
   second, taps 2 and 3 of the first, and so on. This writes n taps from number k on; it returns the next number. */
static inline uint32_t column_fill(int16_t value, int32_t n, int16_t *to, uint32_t k)
{
    for (; n > 0; n--, k++)
        to[2 * k - (k & 1)] = value;
    return k;
}

static inline uint32_t column_copy(const int8_t *x, int32_t n, int16_t *to, uint32_t k)
{
#ifdef DUAL_MAC
    if (n >= 5) {
        word *pairs;
        if ((k & 1) != 0) {
            to[2 * k - 1] = *x++;
            k++;
            n--;
        }
        pairs = (word *)(void *)(to + 2 * k);
        for (; n >= 4; n -= 4, k += 4) {
            const uint32_t four = *(const unaligned_word *)(const void *)x;
            const uint32_t even = even_bytes(four), odd = odd_bytes(four);
            uint32_t low, high;
            __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(low) : "r"(even), "r"(odd));
            __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(high) : "r"(odd), "r"(even));
            pairs[0] = low;
            pairs[2] = high;
            pairs += 4;
            x += 4;
        }
    }
#endif
    for (; n > 0; n--, k++)
        to[2 * k - (k & 1)] = *x++;
    return k;
}

/* One column, for the kernel at (row, column), which may be partly outside */
static void conv_2d_gather(const struct conv_2d *s, const int8_t *x, int32_t row, int32_t column, int16_t *to)
{
    const int32_t step = s->dilation_width, width = s->kernel_width, channels = s->channels;
    const int16_t zero = (int16_t)s->in_zero;
    int32_t first = 0, last = width; /* taps first to last - 1 are inside */
    uint32_t k = 0;
    int32_t i, j;
    if (column < 0)
        first = (step - 1 - column) / step;
    if (column + (width - 1) * step >= s->in_width)
        last = column < s->in_width ? (s->in_width - column + step - 1) / step : 0;
    first = first < width ? first : width;
    last = last > first ? last : first;
    for (i = 0; i < s->kernel_height; i++, row += s->dilation_height) {
        const int8_t *from = x + (row * s->in_width + column + first * step) * channels;
        if (row < 0 || row >= s->in_height) {
            k = column_fill(zero, width * channels, to, k);
            continue;
        }
        k = column_fill(zero, first * channels, to, k);
        if (step == 1) {
            k = column_copy(from, (last - first) * channels, to, k);
        } else {
            for (j = first; j < last; j++, from += step * channels)
                k = column_copy(from, channels, to, k);
        }
        k = column_fill(zero, (width - last) * channels, to, k);
    }
}

/* Adds to sum[0] and [1] the products of two outputs' weights, stride apart, with the first column, to sum[2] and [3]
   those with the second. */
static inline void conv_2d_dot(const int8_t *w, int32_t stride, const int16_t *x, int32_t taps, uint32_t *sum)
{
#ifdef FEW_REGISTERS
    int32_t i;
    for (i = 0; i < 2; i++, w += stride) {
        const int8_t *from = w, *const end = w + taps;
        const int16_t *at = x;
        uint32_t a = sum[i], b = sum[2 + i], weight, value;
#define PRODUCT(sum, at, extend)                                                                                       \
    "ldr %[value], [%[at], #" at "]\n" extend "muls %[value], %[weight]\n adds " sum ", " sum ", %[value]\n"
#define TWO_PRODUCTS(tap, first, second, extend)                                                                       \
    "ldrb %[weight], [%[from], #" tap "]\n sxtb %[weight], %[weight]\n" PRODUCT("%[a]", first, extend)                 \
        PRODUCT("%[b]", second, extend)
        __asm__ volatile(".syntax unified\n"
                         "1:\n"
                         TWO_PRODUCTS("0", "0", "4", "sxth %[value], %[value]\n")
                         TWO_PRODUCTS("1", "8", "12", "sxth %[value], %[value]\n")
                         TWO_PRODUCTS("2", "0", "4", "asrs %[value], %[value], #16\n")
                         TWO_PRODUCTS("3", "8", "12", "asrs %[value], %[value], #16\n")
                         "adds %[at], %[at], #16\n adds %[from], %[from], #4\n"
                         "cmp %[from], %[end]\n bne 1b"
                         : [a] "+l"(a), [b] "+l"(b), [from] "+l"(from), [at] "+l"(at), [weight] "=&l"(weight),
                           [value] "=&l"(value)
                         : [end] "h"(end)
                         : "memory", "cc");
        sum[i] = a;
        sum[2 + i] = b;
    }
#else
    uint32_t a0 = sum[0], a1 = sum[1], b0 = sum[2], b1 = sum[3];
#ifdef DUAL_MAC
    const int8_t *end = w + taps;
    uint32_t u, v, p, q, t;
#ifdef __thumb2__
#define LOAD_PAIRS "ldrd %[p], %[q], [%[x]], #8\n"
#else
#define LOAD_PAIRS "ldr %[p], [%[x]], #4\n ldr %[q], [%[x]], #4\n"
#endif
#define FOUR_TAPS                                                                                                      \
    "ldr %[u], [%[w], %[stride]]\n ldr %[v], [%[w]], #4\n" LOAD_PAIRS                                                  \
    "sxtb16 %[t], %[v]\n smlad %[a0], %[t], %[p], %[a0]\n smlad %[b0], %[t], %[q], %[b0]\n"                            \
    "sxtb16 %[t], %[u]\n smlad %[a1], %[t], %[p], %[a1]\n smlad %[b1], %[t], %[q], %[b1]\n" LOAD_PAIRS                 \
    "sxtb16 %[v], %[v], ror #8\n smlad %[a0], %[v], %[p], %[a0]\n smlad %[b0], %[v], %[q], %[b0]\n"                    \
    "sxtb16 %[u], %[u], ror #8\n smlad %[a1], %[u], %[p], %[a1]\n smlad %[b1], %[u], %[q], %[b1]\n"
#define OPERANDS                                                                                                       \
    [a0] "+&r"(a0), [a1] "+&r"(a1), [b0] "+&r"(b0), [b1] "+&r"(b1), [w] "+&r"(w), [x] "+&r"(x), [u] "=&r"(u),          \
        [v] "=&r"(v), [p] "=&r"(p), [q] "=&r"(q), [t] "=&r"(t)
    if ((taps & 4) != 0)
        __asm__ volatile(FOUR_TAPS : OPERANDS : [stride] "r"(stride) : "memory");
    if (w != end)
        __asm__ volatile("1:\n" FOUR_TAPS FOUR_TAPS "cmp %[w], %[end]\n bne 1b\n"
                         : OPERANDS
                         : [stride] "r"(stride), [end] "r"(end)
                         : "memory", "cc");
#else
    const int8_t *w1 = w + stride;
    int32_t k;
    for (k = 0; k < taps; k += 4, w += 4, w1 += 4, x += 8) {
        a0 += (uint32_t)(w[0] * x[0] + w[2] * x[1] + w[1] * x[4] + w[3] * x[5]);
        a1 += (uint32_t)(w1[0] * x[0] + w1[2] * x[1] + w1[1] * x[4] + w1[3] * x[5]);
        b0 += (uint32_t)(w[0] * x[2] + w[2] * x[3] + w[1] * x[6] + w[3] * x[7]);
        b1 += (uint32_t)(w1[0] * x[2] + w1[2] * x[3] + w1[1] * x[6] + w1[3] * x[7]);
    }
#endif
    sum[0] = a0;
    sum[1] = a1;
    sum[2] = b0;
    sum[3] = b1;
#endif
}

/* columns: room for two columns of taps, in fours */
static void conv_2d(const struct conv_2d *s, const int8_t *x, int8_t *y, int16_t *columns)
{
    const int32_t taps = (s->kernel_height * s->kernel_width * s->channels + 3) & ~(int32_t)3;
    const int32_t pixels = s->out_height * s->out_width, outputs = s->outputs;
    const int32_t zero = s->out_zero, low = s->low, high = s->high;
    const int32_t more = outputs > 1, stride = more ? taps : 0; /* a single output is computed twice */
    int32_t pixel, column = -s->pad_left, row = -s->pad_top, across = 0, output;
    for (pixel = 0; pixel < pixels; pixel += 2, y += 2 * outputs) {
        const int32_t two = pixel + 1 < pixels; /* if not, the second column is stale */
        int32_t i;
        for (i = 0; i <= two; i++) {
            conv_2d_gather(s, x, row, column, columns + 2 * i);
            column += s->stride_width;
            if (++across == s->out_width) {
                across = 0;
                column = -s->pad_left;
                row += s->stride_height;
            }
        }
        for (output = 0; output < outputs; output += 2) {
            if (output + more >= outputs) /* odd number: the last pair starts one earlier */
                output--;
            const int32_t m0 = s->multiplier[output], m1 = s->multiplier[output + more];
            const int32_t shift0 = s->shift[output], shift1 = s->shift[output + more];
            int8_t *to = y + output;
            uint32_t sum[4];
            sum[0] = sum[2] = (uint32_t)s->bias[output];
            sum[1] = sum[3] = (uint32_t)s->bias[output + more];
            conv_2d_dot(s->weights + output * taps, stride, columns, taps, sum);
            to[0] = clamp(requantize((int32_t)sum[0], m0, shift0, zero), low, high);
            to[more] = clamp(requantize((int32_t)sum[1], m1, shift1, zero), low, high);
            if (two > 0) {
                to += outputs;
                to[0] = clamp(requantize((int32_t)sum[2], m0, shift0, zero), low, high);
                to[more] = clamp(requantize((int32_t)sum[3], m1, shift1, zero), low, high);
            }
        }
    }
}
//@ depthwise_conv_2d_settings: base
struct depthwise_conv_2d {
    const int8_t *weights; /* of all outputs for each tap */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
    int32_t plane_height, plane_width; /* one channel with its padding; both are even */
    int32_t in_zero, out_zero, low, high;
};
//@ depthwise_conv_2d (channels): depthwise_conv_2d_settings requantize clamp
/* A channel's plane by lines of lanes: rows of columns, or the reverse for tall kernels. Distances are in elements. */
struct lines {
    struct along {
        int32_t line, lane;
    } in, x, pad, out, y, kernel, w, stride, dilation; /* sizes of in, out and kernel; distances in x, y and weights */
    int32_t length;                                    /* of a line of the plane */
};

static struct along along(int32_t rows, int32_t columns, int32_t turned)
{
    struct along pair;
    pair.line = turned > 0 ? columns : rows;
    pair.lane = turned > 0 ? rows : columns;
    return pair;
}

#ifdef DUAL_MAC
/* Kernels of 3 x 3, two neighbouring outputs at a time. Words hold weights 0 and 1, and 1 and 2 of each line. */
static void depthwise_conv_2d_plane_3x3(const struct depthwise_conv_2d *s, const struct lines *l, int16_t *plane,
                                        int32_t output, int8_t *y)
{
    const int8_t *w = s->weights + output;
    const int32_t m = s->multiplier[output], shift = s->shift[output], y_lane = l->y.lane;
    const int32_t zero = s->out_zero, low = s->low, high = s->high, out_lanes = l->out.lane;
    const int32_t line = l->length * 2, pairs = l->stride.lane == 1;
    const int8_t *start = (const int8_t *)plane;
    const uint32_t bias = (uint32_t)s->bias[output];
    uint32_t pair[6];
    int32_t row, i;
    for (i = 0; i < 3; i++, w += l->w.line) {
        const int8_t *const middle = w + l->w.lane;
        pair[2 * i] = (uint32_t)(*w & 0xffff) | (uint32_t)*middle << 16;
        pair[2 * i + 1] = (uint32_t)(*middle & 0xffff) | (uint32_t)middle[l->w.lane] << 16;
    }
    for (row = 0; row < l->out.line; row++, start += l->stride.line * line) {
        const int8_t *x = start;
        int8_t *to = y + row * l->y.line;
        int32_t left = out_lanes;
        do {
            uint32_t sum = bias, next = bias, a, b, u, v;
            const int8_t *from = x;
#ifdef __thumb2__
#define LOAD_2(a, b, from, at) "ldrd " a ", " b ", [" from ", #" at "]\n"
#else
#define LOAD_2(a, b, from, at) "ldr " a ", [" from ", #" at "]\n ldr " b ", [" from ", #" at " + 4]\n"
#endif
#define THREE_TAPS(at)                                                                                                 \
    LOAD_2("%[a]", "%[b]", "%[x]", "0")                                                                                \
    LOAD_2("%[u]", "%[v]", "%[w]", at)                                                                                 \
    "smlad %[sum], %[a], %[u], %[sum]\n smlabt %[sum], %[b], %[v], %[sum]\n"                                           \
    "smlatb %[next], %[a], %[u], %[next]\n smlad %[next], %[b], %[v], %[next]\n"
            __asm__ volatile(THREE_TAPS("0") "add %[x], %[x], %[line]\n" THREE_TAPS("8") "add %[x], %[x], %[line]\n"
                                 THREE_TAPS("16")
                             : [sum] "+&r"(sum), [next] "+&r"(next), [x] "+&r"(from), [a] "=&r"(a), [b] "=&r"(b),
                               [u] "=&r"(u), [v] "=&r"(v)
                             : [w] "r"(pair), [line] "r"(line)
                             : "memory");
            *to = clamp(requantize((int32_t)sum, m, shift, zero), low, high);
            to += y_lane;
            x += 4;
            if (pairs && --left > 0) { /* the output between, if the stride is 1 */
                *to = clamp(requantize((int32_t)next, m, shift, zero), low, high);
                to += y_lane;
            }
        } while (--left > 0);
    }
}

/* Any kernel without dilation along its lines, two neighbouring outputs at a time. After the plane, there is room for
   each line's weights in words: weights 0 and 1 for the first output, then 0 alone for the second, 2 and 3, 1 and 2, and
   so on. */
static void depthwise_conv_2d_plane_pairs(const struct depthwise_conv_2d *s, const struct lines *l, int16_t *plane,
                                          int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], shift = s->shift[output], y_lane = l->y.lane, words = l->kernel.lane / 2 + 1;
    const int32_t zero = s->out_zero, low = s->low, high = s->high, pairs = l->stride.lane == 1;
    const int32_t kernel_lines = l->kernel.line, down = l->dilation.line * l->length, step = pairs ? 2 : l->stride.lane;
    const uint32_t bias = (uint32_t)s->bias[output];
    word *const weights = (word *)(void *)(plane + s->plane_height * s->plane_width), *to = weights;
    int32_t row, i, k;
    for (i = 0; i < kernel_lines; i++) {
        const int8_t *w = s->weights + output + i * l->w.line;
        uint32_t before = 0;
        for (k = l->kernel.lane; k > -1; k -= 2, to += 2) {
            const uint32_t low_half = k > 0 ? (uint32_t)(*w & 0xffff) : 0;
            const uint32_t high_half = k > 1 ? (uint32_t)(w[l->w.lane] & 0xffff) : 0;
            to[0] = low_half | high_half << 16;
            to[1] = before | low_half << 16;
            before = high_half;
            w += 2 * l->w.lane;
        }
    }
    for (row = 0; row < l->out.line; row++) {
        const int16_t *start = plane + row * l->stride.line * l->length;
        int8_t *made = y + row * l->y.line;
        int32_t left = l->out.lane;
        do {
            uint32_t sum = bias, next = bias;
            const int16_t *from = start;
            const word *w = weights;
            for (i = kernel_lines; i > 0; i--, from += down) {
                const int16_t *x = from;
                for (k = words; k > 0; k--, x += 2, w += 2) {
                    const uint32_t two = *(const unaligned_word *)(const void *)x;
                    sum = mac_2(two, w[0], sum);
                    next = mac_2(two, w[1], next);
                }
            }
            *made = clamp(requantize((int32_t)sum, m, shift, zero), low, high);
            made += y_lane;
            start += step;
            if (pairs && --left > 0) {
                *made = clamp(requantize((int32_t)next, m, shift, zero), low, high);
                made += y_lane;
            }
        } while (--left > 0);
    }
}
#endif

/* Any kernel. After the plane, there is room for its weights. */
static void depthwise_conv_2d_plane(const struct depthwise_conv_2d *s, const struct lines *l, int16_t *plane,
                                    int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], shift = s->shift[output], y_lane = l->y.lane, stride = l->stride.lane;
    const int32_t kernel_lines = l->kernel.line, kernel_lanes = l->kernel.lane, apart = l->dilation.lane;
    const int32_t down = l->dilation.line * l->length;
    int16_t *const weights = plane + s->plane_height * s->plane_width, *copy = weights;
    int32_t row, left, i, j;
    for (i = 0; i < kernel_lines; i++) {
        for (j = 0; j < kernel_lanes; j++)
            *copy++ = s->weights[output + i * l->w.line + j * l->w.lane];
    }
    for (row = 0; row < l->out.line; row++) {
        const int16_t *from = plane + row * l->stride.line * l->length;
        int8_t *to = y + row * l->y.line;
        for (left = l->out.lane; left > 0; left--, from += stride) {
            const int16_t *line = from, *w = weights;
            uint32_t sum = (uint32_t)s->bias[output];
            for (i = kernel_lines; i > 0; i--, line += down) {
                const int16_t *x = line;
                for (j = kernel_lanes; j > 0; j--, x += apart)
                    sum += (uint32_t)(*x * *w++);
            }
            *to = clamp(requantize((int32_t)sum, m, shift, s->out_zero), s->low, s->high);
            to += y_lane;
        }
    }
}

/* plane: room for one channel, and for weights in words */
static void depthwise_conv_2d(const struct depthwise_conv_2d *s, const int8_t *x, int8_t *y, int16_t *plane)
{
    const int32_t channels = s->channels, multiplier = s->outputs / channels, outputs = s->outputs;
    const int32_t below = s->plane_height - s->pad_top, beside = s->plane_width - s->pad_left;
    const int32_t height = below < s->in_height ? below : s->in_height;
    const int32_t width = beside < s->in_width ? beside : s->in_width;
    struct lines l;
    void (*make)(const struct depthwise_conv_2d *, const struct lines *, int16_t *, int32_t, int8_t *) =
        depthwise_conv_2d_plane;
    int32_t channel, line, lane, i, turned = 0;
    if (s->dilation_height == 1 && (s->kernel_height > s->kernel_width || s->dilation_width > 1))
        turned = 1;
    l.in = along(height, width, turned);
    l.x = along(s->in_width * channels, channels, turned);
    l.pad = along(s->pad_top, s->pad_left, turned);
    l.out = along(s->out_height, s->out_width, turned);
    l.y = along(s->out_width * outputs, outputs, turned);
    l.kernel = along(s->kernel_height, s->kernel_width, turned);
    l.w = along(s->kernel_width * outputs, outputs, turned);
    l.stride = along(s->stride_height, s->stride_width, turned);
    l.dilation = along(s->dilation_height, s->dilation_width, turned);
    l.length = turned > 0 ? s->plane_height : s->plane_width;
#ifdef DUAL_MAC
    if (l.dilation.lane == 1)
        make = depthwise_conv_2d_plane_pairs;
    if (s->kernel_height == 3 && s->kernel_width == 3 && s->dilation_height == 1 && s->dilation_width == 1 &&
        s->stride_width <= 2)
        make = depthwise_conv_2d_plane_3x3;
#endif
    for (i = s->plane_height * s->plane_width; i > 0; i--)
        plane[i - 1] = (int16_t)s->in_zero;
    for (channel = 0; channel < channels; channel++) {
        for (line = 0; line < l.in.line; line++) {
            const int8_t *from = x + line * l.x.line + channel;
            int16_t *to = plane + (line + l.pad.line) * l.length + l.pad.lane;
            for (lane = l.in.lane; lane > 0; lane--, from += l.x.lane)
                *to++ = *from;
        }
        for (i = channel * multiplier; i < (channel + 1) * multiplier; i++)
            make(s, &l, plane, i, y + i);
    }
}
//@ fully_connected_settings: base
struct fully_connected {
    const int8_t *weights; /* taps of each output, padded with zeros to a multiple of 4 */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t rows, taps, outputs;
    int32_t out_zero, low, high;
};
//@ fully_connected: fully_connected_settings requantize clamp
#ifdef DUAL_MAC
/* Adds to sum[0] to [3] the products of four outputs' weights, stride apart, with the inputs; taps is a multiple of 4. */
__attribute__((noinline)) static void fully_connected_dot(const int8_t *w, int32_t stride, const int8_t *x, int32_t taps,
                                                          uint32_t *sum)
{
    const int8_t *const end = w + taps;
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], even, odd, u, t;
#define OUTPUT(from, sum)                                                                                              \
    "ldr %[u], " from "\n sxtb16 %[t], %[u]\n smlad " sum ", %[t], %[even], " sum "\n"                                 \
    "sxtb16 %[u], %[u], ror #8\n smlad " sum ", %[u], %[odd], " sum "\n"
#define FOUR_INPUTS                                                                                                    \
    "ldr %[odd], [%[x]], #4\n sxtb16 %[even], %[odd]\n sxtb16 %[odd], %[odd], ror #8\n"                                \
    OUTPUT("[%[w], %[stride]]", "%[b]") OUTPUT("[%[w], %[stride], lsl #1]", "%[c]")                                    \
    OUTPUT("[%[w], %[triple]]", "%[d]") OUTPUT("[%[w]], #4", "%[a]")
    if ((taps & 4) != 0)
        __asm__ volatile(FOUR_INPUTS
                         : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [w] "+&r"(w), [x] "+&r"(x),
                           [even] "=&r"(even), [odd] "=&r"(odd), [u] "=&r"(u), [t] "=&r"(t)
                         : [stride] "r"(stride), [triple] "r"(3 * stride)
                         : "memory");
    if (w != end)
        __asm__ volatile("1:\n" FOUR_INPUTS FOUR_INPUTS "cmp %[w], %[end]\n bne 1b"
                         : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [w] "+&r"(w), [x] "+&r"(x),
                           [even] "=&r"(even), [odd] "=&r"(odd), [u] "=&r"(u), [t] "=&r"(t)
                         : [stride] "r"(stride), [triple] "r"(3 * stride), [end] "r"(end)
                         : "memory", "cc");
    sum[0] = a;
    sum[1] = b;
    sum[2] = c;
    sum[3] = d;
}
#endif

static void fully_connected(const struct fully_connected *s, const int8_t *x, int8_t *y)
{
    const int32_t taps = s->taps, stride = (taps + 3) & ~(int32_t)3;
    const int32_t zero = s->out_zero, low = s->low, high = s->high;
    int32_t row, output, k;
    for (row = 0; row < s->rows; row++, x += taps, y += s->outputs) {
        output = 0;
#ifdef DUAL_MAC
        for (; output + 4 <= s->outputs; output += 4) {
            const int8_t *w = s->weights + output * stride;
            uint32_t sum[4];
            int32_t i;
            for (i = 0; i < 4; i++)
                sum[i] = (uint32_t)s->bias[output + i];
            fully_connected_dot(w, stride, x, taps & ~(int32_t)3, sum);
            for (i = 0; i < 4; i++, w += stride) {
                const int32_t m = s->multiplier[output + i], shift = s->shift[output + i];
                for (k = taps & ~(int32_t)3; k < taps; k++)
                    sum[i] += (uint32_t)(w[k] * x[k]);
                y[output + i] = clamp(requantize((int32_t)sum[i], m, shift, zero), low, high);
            }
        }
#endif
        for (; output < s->outputs; output += 2) {
            const int32_t next = output + 1 < s->outputs ? output + 1 : output;
            const int8_t *w0 = s->weights + output * stride, *w1 = s->weights + next * stride;
            uint32_t a = (uint32_t)s->bias[output], b = (uint32_t)s->bias[next];
            k = 0;
#ifdef DUAL_MAC
            for (; k + 4 <= taps; k += 4) {
                const uint32_t four = *(const unaligned_word *)(const void *)(x + k);
                const uint32_t u = *(const word *)(const void *)(w0 + k), v = *(const word *)(const void *)(w1 + k);
                const uint32_t even = even_bytes(four), odd = odd_bytes(four);
                a = mac_2(even_bytes(u), even, a);
                b = mac_2(even_bytes(v), even, b);
                a = mac_2(odd_bytes(u), odd, a);
                b = mac_2(odd_bytes(v), odd, b);
            }
#endif
            for (; k < taps; k++) {
                a += (uint32_t)(w0[k] * x[k]);
                b += (uint32_t)(w1[k] * x[k]);
            }
            y[output] = clamp(requantize((int32_t)a, s->multiplier[output], s->shift[output], zero), low, high);
            y[next] = clamp(requantize((int32_t)b, s->multiplier[next], s->shift[next], zero), low, high);
        }
    }
}
//@ pool: clamp
struct pool {
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t pad_top, pad_left;
    int32_t low, high;
};
//@ max_pool_2d (pixels): pool
static void max_pool_2d(const struct pool *s, const int8_t *x, int8_t *y)
{
    const int32_t channels = s->channels, line = s->in_width * channels;
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t y0 = row * s->stride_height - s->pad_top, y1 = y0 + s->kernel_height;
        const int32_t top = y0 < 0 ? 0 : y0, height = (y1 > s->in_height ? s->in_height : y1) - top;
        for (column = 0; column < s->out_width; column++) {
            const int32_t x0 = column * s->stride_width - s->pad_left, x1 = x0 + s->kernel_width;
            const int32_t left = x0 < 0 ? 0 : x0, width = (x1 > s->in_width ? s->in_width : x1) - left;
            const int8_t *corner = x + (top * s->in_width + left) * channels;
            c = 0;
#ifdef DUAL_MAC
            for (; c + 4 <= channels; c += 4, corner += 4) {
                const int8_t *start = corner;
                uint32_t largest = 0x80808080u, difference;
                for (i = 0; i < height; i++, start += line) {
                    const int8_t *from = start;
                    for (j = 0; j < width; j++, from += channels)
                        __asm__("ssub8 %1, %2, %0\n sel %0, %2, %0"
                                : "+r"(largest), "=&r"(difference)
                                : "r"(*(const unaligned_word *)(const void *)from)
                                : "cc");
                }
                for (i = 0; i < 4; i++, largest >>= 8)
                    *y++ = clamp((int8_t)(largest & 255), s->low, s->high);
            }
#endif
            for (; c < channels; c++, corner++) {
                const int8_t *start = corner;
                int32_t largest = -128;
                for (i = 0; i < height; i++, start += line) {
                    const int8_t *from = start;
                    for (j = 0; j < width; j++, from += channels)
                        largest = *from > largest ? *from : largest;
                }
                *y++ = clamp(largest, s->low, s->high);
            }
        }
    }
}
//@ average_pool_2d (pixels): pool
/* The mean of the elements inside, rounded to nearest, halves away from zero */
static void average_pool_2d(const struct pool *s, const int8_t *x, int8_t *y)
{
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t y0 = row * s->stride_height - s->pad_top, y1 = y0 + s->kernel_height;
        const int32_t top = y0 < 0 ? 0 : y0, bottom = y1 > s->in_height ? s->in_height : y1;
        for (column = 0; column < s->out_width; column++) {
            const int32_t x0 = column * s->stride_width - s->pad_left, x1 = x0 + s->kernel_width;
            const int32_t left = x0 < 0 ? 0 : x0, right = x1 > s->in_width ? s->in_width : x1;
            const int32_t count = (bottom - top) * (right - left), half = count / 2;
            const int8_t *corner = x + (top * s->in_width + left) * s->channels;
            for (c = 0; c < s->channels; c++, corner++) {
                const int8_t *line = corner;
                int32_t sum = 0;
                for (i = top; i < bottom; i++, line += s->in_width * s->channels) {
                    const int8_t *from = line;
                    for (j = left; j < right; j++, from += s->channels)
                        sum += *from;
                }
                *y++ = clamp((sum > 0 ? sum + half : sum - half) / count, s->low, s->high);
            }
        }
    }
}
//@ mean: requantize clamp
struct mean {
    int32_t outer, reduced, inner;
    int32_t in_zeros; /* zero point times the number of values */
    int32_t multiplier, shift, out_zero;
};

static void mean(const struct mean *s, const int8_t *x, int8_t *y)
{
    int32_t outer, inner, i;
    for (outer = 0; outer < s->outer; outer++, x += s->reduced * s->inner) {
        for (inner = 0; inner < s->inner; inner++) {
            const int8_t *from = x + inner;
            int32_t sum = -s->in_zeros;
            for (i = 0; i < s->reduced; i++, from += s->inner)
                sum += *from;
            *y++ = clamp(requantize(sum, s->multiplier, s->shift, s->out_zero), -128, 127);
        }
    }
}
//@ transpose_conv: requantize clamp
struct transpose_conv {
    const int8_t *weights; /* taps of each output */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t pad_top, pad_left;
    int32_t in_zero, out_zero, low, high;
};

/* Each output gathers the inputs whose kernels reach it: those for which tap and stride fit. */
static void transpose_conv(const struct transpose_conv *s, const int8_t *x, int8_t *y)
{
    const int32_t taps = s->kernel_height * s->kernel_width * s->channels, zero = s->in_zero;
    int32_t row, column, output, i, j, k;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            for (output = 0; output < s->outputs; output++) {
                const int8_t *w = s->weights + output * taps;
                uint32_t sum = (uint32_t)s->bias[output];
                for (i = 0; i < s->kernel_height; i++) {
                    const int32_t down = row + s->pad_top - i, in_row = down / s->stride_height;
                    for (j = 0; j < s->kernel_width; j++, w += s->channels) {
                        const int32_t right = column + s->pad_left - j, in_column = right / s->stride_width;
                        const int8_t *from;
                        if (down < 0 || in_row * s->stride_height != down || in_row >= s->in_height || right < 0 ||
                            in_column * s->stride_width != right || in_column >= s->in_width)
                            continue;
                        from = x + (in_row * s->in_width + in_column) * s->channels;
                        for (k = 0; k < s->channels; k++)
                            sum += (uint32_t)(w[k] * (from[k] - zero));
                    }
                }
                *y++ = clamp(requantize((int32_t)sum, s->multiplier[output], s->shift[output], s->out_zero), s->low,
                             s->high);
            }
        }
    }
}
//@ svdf: requantize clamp
struct svdf {
    const int8_t *features, *time; /* a row of weights of each filter */
    const int32_t *bias;
    int32_t inputs, outputs, rank, steps;
    int32_t in_zero, state_zero, out_zero;
    int32_t multiplier[2], shift[2]; /* of features, of outputs */
};

/* Each filter's state moves by one step, and its new feature is the last; rank filters over time make an output.
   The zero point is added to a feature after it was clipped, in 8 bits, as in the pinned TFLite Micro. */
static void svdf(const struct svdf *s, const int8_t *x, int8_t *state, int8_t *y)
{
    const int8_t *features = s->features, *time = s->time;
    int32_t output, filter, i;
    for (output = 0; output < s->outputs; output++) {
        uint32_t sum = (uint32_t)s->bias[output];
        for (filter = 0; filter < s->rank; filter++) {
            int32_t feature = 0;
            for (i = 0; i < s->inputs; i++)
                feature += *features++ * (x[i] - s->in_zero);
            for (i = 1; i < s->steps; i++) {
                *state = state[1];
                sum += (uint32_t)(*time++ * (*state - s->state_zero));
                state++;
            }
            feature = clamp(requantize(feature, s->multiplier[0], s->shift[0], 0), -128, 127) + s->state_zero;
            *state = (int8_t)((feature & 255) - ((feature & 128) << 1));
            sum += (uint32_t)(*time++ * (*state - s->state_zero));
            state++;
        }
        *y++ = clamp(requantize((int32_t)sum, s->multiplier[1], s->shift[1], s->out_zero), -128, 127);
    }
}
//@ reduce_max: base
static void reduce_max(const int8_t *x, int8_t *y, int32_t outers, int32_t reduced, int32_t inners)
{
    int32_t outer, inner, i;
    for (outer = 0; outer < outers; outer++, x += reduced * inners) {
        for (inner = 0; inner < inners; inner++) {
            const int8_t *from = x + inner;
            int8_t largest = *from;
            for (i = 1; i < reduced; i++) {
                from += inners;
                if (*from > largest)
                    largest = *from;
            }
            *y++ = largest;
        }
    }
}
//@ binary: requantize clamp
/* Four dimensions; a stride of 0 repeats an operand. */
struct binary {
    int32_t size[4], stride_a[4], stride_b[4];
    int32_t zero_a, zero_b, out_zero, low, high;
    int32_t left_a, multiplier_a, shift_a, left_b, multiplier_b, shift_b; /* ADD and SUB only */
    int32_t multiplier, shift;
};
//@ add (values): binary
/* Both operands, shifted left by 20 bits, are rescaled to twice the larger of their scales. */
static void add(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y, int32_t sign)
{
    const int32_t zero = s->out_zero, low = s->low, high = s->high;
    const int32_t unit_a = (int32_t)1 << s->left_a, unit_b = sign * ((int32_t)1 << s->left_b);
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = s->size[3]; l > 0; l--, p += s->stride_a[3], q += s->stride_b[3]) {
                    const int32_t u = requantize((*p - s->zero_a) * unit_a, s->multiplier_a, s->shift_a, 0);
                    const int32_t v = requantize((*q - s->zero_b) * unit_b, s->multiplier_b, s->shift_b, 0);
                    *y++ = clamp(requantize(u + v, s->multiplier, s->shift, zero), low, high);
                }
            }
        }
    }
}
//@ mul (values): binary
static void mul(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = 0; l < s->size[3]; l++, p += s->stride_a[3], q += s->stride_b[3]) {
                    const int32_t product = (*p - s->zero_a) * (*q - s->zero_b);
                    *y++ = clamp(requantize(product, s->multiplier, s->shift, s->out_zero), s->low, s->high);
                }
            }
        }
    }
}
//@ pairs: binary
/* y = value(s, a, b) for each pair of operands */
static void pairs(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y,
                  int8_t (*value)(const struct binary *, int8_t, int8_t))
{
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = 0; l < s->size[3]; l++, p += s->stride_a[3], q += s->stride_b[3])
                    *y++ = value(s, *p, *q);
            }
        }
    }
}
//@ prelu: pairs
/* Values below 0 are multiplied with their slope. */
static int8_t prelu(const struct binary *s, int8_t a, int8_t slope)
{
    const int32_t x = a - s->zero_a;
    const int32_t value = x >= 0 ? requantize(x, s->multiplier_a, s->shift_a, s->out_zero)
                                 : requantize(x * (slope - s->zero_b), s->multiplier, s->shift, s->out_zero);
    return clamp(value, s->low, s->high);
}
//@ larger: pairs
/* All have the same scale. */
static int8_t larger(const struct binary *s, int8_t a, int8_t b)
{
    (void)s;
    return a > b ? a : b;
}
//@ smaller: pairs
/* All have the same scale. */
static int8_t smaller(const struct binary *s, int8_t a, int8_t b)
{
    (void)s;
    return a < b ? a : b;
}
//@ lookup (values): base
/* A function of single values, from its table */
static void lookup(const uint8_t *table, const int8_t *x, int8_t *y, int32_t n)
{
    for (; n > 0; n--)
        *y++ = (int8_t)table[(uint8_t)*x++];
}
//@ softmax: base
static inline int32_t high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int32_t)1 << 30)) >> 31);
}

/* 1 / sum, by three steps of Newton's method; the exponent goes to shift. sum >= 1 has 12 integer bits. */
static int32_t softmax_reciprocal(int32_t sum, int32_t *shift)
{
    const int32_t two = (int32_t)1 << 29;
    uint32_t shifted = (uint32_t)sum;
    int32_t zeros = 0, half, x, i;
    while (shifted < 0x80000000u) {
        shifted <<= 1;
        zeros++;
    }
    *shift = 12 - zeros;
    half = (int32_t)(((int64_t)(shifted & 0x7fffffff) + 0x80000000u) >> 1);
    x = 1515870810 + high_mul(half, -1010580540);
    for (i = 0; i < 3; i++)
        x += high_mul(x, two - high_mul(half, x)) * 4;
    return x > 0x3fffffff ? 0x7fffffff : x * 2;
}

/* value / 2^shift for value >= 0, rounded to nearest */
static inline int32_t softmax_round(int32_t value, int32_t shift)
{
    return shift > 31 ? 0 : ((value >> (shift - 1)) + 1) >> 1;
}

/* table: exp of minus the difference from the largest, 0 beyond its end */
static void softmax(const int32_t *table, int32_t entries, const int8_t *x, int8_t *y, int32_t rows, int32_t n)
{
    int32_t row, i;
    for (row = 0; row < rows; row++, x += n, y += n) {
        int32_t largest = -128, sum = 0, scale, shift;
        for (i = 0; i < n; i++)
            largest = x[i] > largest ? x[i] : largest;
        for (i = 0; i < n; i++) {
            if (largest - x[i] < entries)
                sum += softmax_round(table[largest - x[i]], 12);
        }
        scale = softmax_reciprocal(sum, &shift);
        for (i = 0; i < n; i++) {
            int32_t value = 0;
            if (largest - x[i] < entries)
                value = softmax_round(high_mul(scale, table[largest - x[i]]), shift + 23);
            y[i] = (int8_t)((value > 255 ? 255 : value) - 128);
        }
    }
}
//@ copy_rows: base
/* rows of n bytes, with stride in y */
static void copy_rows(const int8_t *x, int8_t *y, int32_t rows, int32_t n, int32_t stride)
{
    int32_t i;
    for (; rows > 0; rows--, y += stride) {
        for (i = 0; i < n; i++)
            y[i] = *x++;
    }
}
//@ fill_8: base
static void fill_8(int8_t value, int8_t *y, int32_t n)
{
    for (; n > 0; n--)
        *y++ = value;
}
//@ pad: fill_8
struct pad {
    int32_t size[4], stride[4]; /* of the input, and strides of its axes in the output */
    int32_t start, total, value;
};

static void pad(const struct pad *s, const int8_t *x, int8_t *y)
{
    int32_t i, j, k, l;
    fill_8((int8_t)s->value, y, s->total);
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                int8_t *to = y + s->start + i * s->stride[0] + j * s->stride[1] + k * s->stride[2];
                for (l = 0; l < s->size[3]; l++)
                    to[l * s->stride[3]] = *x++;
            }
        }
    }
}
//@ rearrange: base
/* Axes in another order, or repeated (with a stride of 0) */
struct rearrange {
    int32_t size[8], stride[8]; /* of the output, and strides of its axes in the input */
};

static void rearrange(const struct rearrange *s, const int8_t *x, int8_t *y)
{
    int32_t at[8] = {0, 0, 0, 0, 0, 0, 0, 0}, axis, i;
    do {
        for (i = 0; i < s->size[7]; i++)
            *y++ = x[i * s->stride[7]];
        for (axis = 6; axis >= 0; axis--) {
            x += s->stride[axis];
            if (++at[axis] < s->size[axis])
                break;
            x -= s->size[axis] * s->stride[axis];
            at[axis] = 0;
        }
    } while (axis >= 0);
}
//@ resize_nearest_neighbor: base
struct resize_nearest_neighbor {
    const int16_t *rows, *columns; /* source index of each output index */
    int32_t in_width, channels, out_height, out_width;
};

static void resize_nearest_neighbor(const struct resize_nearest_neighbor *s, const int8_t *x, int8_t *y)
{
    int32_t row, column, c;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            const int8_t *from = x + (s->rows[row] * s->in_width + s->columns[column]) * s->channels;
            for (c = 0; c < s->channels; c++)
                *y++ = from[c];
        }
    }
}
//@ resize_bilinear: base
struct resize_bilinear {
    const int16_t (*rows)[3], (*columns)[3]; /* two source indices and the distance from the first, in 1024ths */
    int32_t in_width, channels, out_height, out_width;
};

static void resize_bilinear(const struct resize_bilinear *s, const int8_t *x, int8_t *y)
{
    int32_t row, column, c;
    for (row = 0; row < s->out_height; row++) {
        const int16_t *r = s->rows[row];
        for (column = 0; column < s->out_width; column++) {
            const int16_t *k = s->columns[column];
            const int8_t *upper_left = x + (r[0] * s->in_width + k[0]) * s->channels;
            const int8_t *upper_right = x + (r[0] * s->in_width + k[1]) * s->channels;
            const int8_t *lower_left = x + (r[1] * s->in_width + k[0]) * s->channels;
            const int8_t *lower_right = x + (r[1] * s->in_width + k[1]) * s->channels;
            for (c = 0; c < s->channels; c++) {
                const int32_t sum = upper_left[c] * (1024 - r[2]) * (1024 - k[2]) +
                                    lower_left[c] * r[2] * (1024 - k[2]) + upper_right[c] * (1024 - r[2]) * k[2] +
                                    lower_right[c] * r[2] * k[2];
                *y++ = (int8_t)((sum > 0 ? sum + (1 << 19) : sum - (1 << 19)) / (1 << 20));
            }
        }
    }
}
