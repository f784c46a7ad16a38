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
//@ clamp_16: base
static inline int16_t clamp_16(int32_t value)
{
    value = value < -32768 ? -32768 : value;
    return (int16_t)(value > 32767 ? 32767 : value);
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
//@ mean_settings: base
/* Along reduced and again; outer, middle and inner remain. */
struct mean {
    int32_t outer, reduced, middle, again, inner;
    int32_t in_zeros; /* zero point times the number of values */
    int32_t multiplier, shift, out_zero;
};
//@ mean: mean_settings requantize clamp
static void mean(const struct mean *s, const int8_t *x, int8_t *y)
{
    const int32_t line = s->again * s->inner;
    int32_t outer, middle, inner, i, j;
    for (outer = 0; outer < s->outer; outer++, x += s->reduced * s->middle * line) {
        for (middle = 0; middle < s->middle; middle++) {
            for (inner = 0; inner < s->inner; inner++) {
                const int8_t *from = x + middle * line + inner;
                int32_t sum = -s->in_zeros;
                for (i = 0; i < s->reduced; i++, from += s->middle * line) {
                    for (j = 0; j < line; j += s->inner)
                        sum += from[j];
                }
                *y++ = clamp(requantize(sum, s->multiplier, s->shift, s->out_zero), -128, 127);
            }
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
//@ sigmoid_16: base
/* 65536 / (1 + exp(-i / 24)), up to 1 more, as TFLite Micro's kernels return it */
static const uint16_t sigmoid_table[256] = {
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064, 42688,
    43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464, 50942, 51409,
    51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433,
    57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110,
    61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186,
    63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308,
    64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900,
    64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208,
    65221, 65234, 65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367,
    65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449,
    65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491,
    65493, 65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
    65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530,
    65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
    65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535};

/* Between two entries of the table; beyond its end, the largest result: value >= 0 has scale 2^-bits / 24 */
static inline uint32_t sigmoid_between(uint32_t value, int32_t bits, uint32_t largest)
{
    const uint32_t place = value >> bits, rest = value & (((uint32_t)1 << bits) - 1);
    if (place >= 255)
        return largest << bits;
    return ((uint32_t)sigmoid_table[place] << bits) + rest * (uint32_t)(sigmoid_table[place + 1] - sigmoid_table[place]);
}

/* of a value of scale 2^-12 / 3, as a Q0.15 */
static inline int16_t sigmoid_16(int32_t value)
{
    const uint32_t result = sigmoid_between((uint32_t)(value < 0 ? -value : value), 9, 0x7fff << 1);
    return (int16_t)((value >= 0 ? result + 512 : ((uint32_t)1 << 25) - result + 511) >> 10);
}

/* of a value of scale 2^-12 / 3, as a Q0.15: 2 * sigmoid(2 * value) - 1 */
static inline int16_t tanh_16(int32_t value)
{
    const int32_t result = (int32_t)sigmoid_between((uint32_t)(value < 0 ? -value : value), 8, 0xffff);
    return (int16_t)((value >= 0 ? result - (1 << 23) + 128 : -result + (1 << 23) + 127) >> 8);
}
//@ lstm: requantize clamp_16 sigmoid_16
struct lstm {
    const int8_t *weights, *recurrent; /* a row for each unit of input, forget, cell and output gate */
    const int32_t *bias;               /* of both, by gate: minus the zero point times the sum of the weights */
    int32_t steps, inputs, units;
    int32_t multiplier[11], shift[11]; /* of both sums of each gate; of the three products */
    int32_t tanh_shift, clip, out_zero;
};

/* 3 * value * 2^shift, rounded to nearest with halves up if shift < 0 */
static inline int32_t lstm_times_3(int32_t value, int32_t shift)
{
    return shift < 0 ? (value * 3 + ((int32_t)1 << (-shift - 1))) >> -shift : value * 3 * ((int32_t)1 << shift);
}

static int32_t lstm_gate(const struct lstm *s, int32_t part, int32_t unit, const int8_t *w, const int8_t *x, int32_t n)
{
    uint32_t sum = (uint32_t)s->bias[part * s->units + unit];
#ifdef DUAL_MAC
    for (; n >= 4; n -= 4, w += 4, x += 4) {
        const uint32_t weights = *(const unaligned_word *)(const void *)w;
        const uint32_t values = *(const unaligned_word *)(const void *)x;
        sum = mac_2(even_bytes(weights), even_bytes(values), sum);
        sum = mac_2(odd_bytes(weights), odd_bytes(values), sum);
    }
#endif
    for (; n > 0; n--)
        sum += (uint32_t)(*w++ * *x++);
    return clamp_16(requantize((int32_t)sum, s->multiplier[part], s->shift[part], 0));
}

/* gates: room for four rows of units */
static void lstm(const struct lstm *s, const int8_t *x, int8_t *hidden, int16_t *cell, int8_t *y, int16_t *gates)
{
    const int32_t units = s->units, *m = s->multiplier + 8, *shift = s->shift + 8;
    int32_t step, gate, unit;
    for (step = 0; step < s->steps; step++, x += s->inputs, y += units) {
        for (gate = 0; gate < 4; gate++) {
            for (unit = 0; unit < units; unit++) {
                const int32_t row = gate * units + unit;
                const int32_t sum = lstm_gate(s, 2 * gate, unit, s->weights + row * s->inputs, x, s->inputs) +
                                    lstm_gate(s, 2 * gate + 1, unit, s->recurrent + row * units, hidden, units);
                gates[row] = gate == 2 ? tanh_16(3 * clamp_16(sum)) : sigmoid_16(3 * clamp_16(sum));
            }
        }
        for (unit = 0; unit < units; unit++) {
            const int32_t kept = clamp_16(requantize(gates[units + unit] * cell[unit], m[0], shift[0], 0));
            const int32_t added = clamp_16(requantize(gates[unit] * gates[2 * units + unit], m[1], shift[1], 0));
            int32_t value = clamp_16(kept + added);
            value = value > s->clip ? s->clip : value < -s->clip ? -s->clip : value;
            cell[unit] = (int16_t)value;
            value = tanh_16(lstm_times_3(value, s->tanh_shift)) * gates[3 * units + unit];
            value = requantize(value, m[2], shift[2], s->out_zero);
            hidden[unit] = y[unit] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
        }
    }
}
//@ extreme: mean_settings
/* The largest value, or the smallest if sign is -1 */
static void extreme(const struct mean *s, const int8_t *x, int8_t *y, int32_t sign)
{
    const int32_t line = s->again * s->inner;
    int32_t outer, middle, inner, i, j;
    for (outer = 0; outer < s->outer; outer++, x += s->reduced * s->middle * line) {
        for (middle = 0; middle < s->middle; middle++) {
            for (inner = 0; inner < s->inner; inner++) {
                const int8_t *from = x + middle * line + inner;
                int8_t most = *from;
                for (i = 0; i < s->reduced; i++, from += s->middle * line) {
                    for (j = 0; j < line; j += s->inner) {
                        if (sign * from[j] > sign * most)
                            most = from[j];
                    }
                }
                *y++ = most;
            }
        }
    }
}
//@ arg_extreme: base
/* The place of the first largest value, or of the first smallest if sign is -1 */
static void arg_extreme(const int8_t *x, int32_t *y, int32_t outers, int32_t count, int32_t inners, int32_t sign)
{
    int32_t outer, inner, i;
    for (outer = 0; outer < outers; outer++, x += count * inners) {
        for (inner = 0; inner < inners; inner++) {
            int32_t most = 0;
            for (i = 1; i < count; i++) {
                if (sign * x[i * inners + inner] > sign * x[most * inners + inner])
                    most = i;
            }
            *y++ = most;
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
//@ squared_difference: pairs
/* Both operands, shifted left by 7 bits, are rescaled to twice the larger of their scales. */
static int8_t squared_difference(const struct binary *s, int8_t a, int8_t b)
{
    const int32_t u = requantize((a - s->zero_a) * ((int32_t)1 << s->left_a), s->multiplier_a, s->shift_a, 0);
    const int32_t v = requantize((b - s->zero_b) * ((int32_t)1 << s->left_b), s->multiplier_b, s->shift_b, 0);
    return clamp(requantize((u - v) * (u - v), s->multiplier, s->shift, s->out_zero), s->low, s->high);
}
//@ compared: pairs
/* The difference of both operands, shifted left by 8 bits and rescaled to a scale of 1 */
static inline int32_t compared(const struct binary *s, int8_t a, int8_t b)
{
    return requantize((a - s->zero_a) * ((int32_t)1 << s->left_a), s->multiplier_a, s->shift_a, 0) -
           requantize((b - s->zero_b) * ((int32_t)1 << s->left_b), s->multiplier_b, s->shift_b, 0);
}
//@ equal: compared
static int8_t equal(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) == 0;
}
//@ not_equal: compared
static int8_t not_equal(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) != 0;
}
//@ greater: compared
static int8_t greater(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) > 0;
}
//@ greater_equal: compared
static int8_t greater_equal(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) >= 0;
}
//@ less: compared
static int8_t less(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) < 0;
}
//@ less_equal: compared
static int8_t less_equal(const struct binary *s, int8_t a, int8_t b)
{
    return compared(s, a, b) <= 0;
}
//@ choose: base
/* Four dimensions; a stride of 0 repeats an operand. */
struct choose {
    int32_t size[4], stride_which[4], stride_a[4], stride_b[4];
};

static void choose(const struct choose *s, const int8_t *which, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *w = which + i * s->stride_which[0] + j * s->stride_which[1] + k * s->stride_which[2];
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = s->size[3]; l > 0; l--, w += s->stride_which[3], p += s->stride_a[3], q += s->stride_b[3])
                    *y++ = *w ? *p : *q;
            }
        }
    }
}
//@ batch_matmul: requantize clamp
struct batch_matmul {
    int32_t size[3], stride_a[3], stride_b[3]; /* before the last two axes */
    int32_t rows, taps, columns;
    int32_t row_a, tap_a, tap_b, column_b; /* distances of neighbours */
    int32_t zero_a, zero_b, out_zero, multiplier, shift;
};

static void batch_matmul(const struct batch_matmul *s, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t i, j, k, row, column, tap;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (row = 0; row < s->rows; row++, p += s->row_a) {
                    for (column = 0; column < s->columns; column++) {
                        const int8_t *u = p, *v = q + column * s->column_b;
                        uint32_t sum = 0;
                        for (tap = 0; tap < s->taps; tap++, u += s->tap_a, v += s->tap_b)
                            sum += (uint32_t)((*u - s->zero_a) * (*v - s->zero_b));
                        *y++ = clamp(requantize((int32_t)sum, s->multiplier, s->shift, s->out_zero), -128, 127);
                    }
                }
            }
        }
    }
}
//@ pick: base
/* Values at the sums of a distance from each axis */
struct pick {
    int32_t size[4];
    const int32_t *distances; /* of all indices of the first axis, then of the second, and so on */
};

static void pick(const struct pick *s, const int8_t *x, int8_t *y)
{
    const int32_t *const first = s->distances, *const second = first + s->size[0], *const third = second + s->size[1];
    const int32_t *const last = third + s->size[2];
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *from = x + first[i] + second[j] + third[k];
                for (l = 0; l < s->size[3]; l++)
                    *y++ = from[last[l]];
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
//@ high_mul: base
static inline int32_t high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int32_t)1 << 30)) >> 31);
}

//@ softmax_parts: high_mul
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

//@ softmax: softmax_parts
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
//@ softmax_to_16: softmax_parts
/* As softmax, to int16 */
static void softmax_to_16(const int32_t *table, int32_t entries, const int8_t *x, int16_t *y, int32_t rows, int32_t n)
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
                value = softmax_round(high_mul(scale, table[largest - x[i]]), shift + 15);
            y[i] = (int16_t)((value > 65535 ? 65535 : value) - 32768);
        }
    }
}
//@ l2_normalization: high_mul requantize_any
/* value * 2^bits, limited to 32 bits */
static inline int32_t times_power(int32_t value, int32_t bits)
{
    const int64_t result = (int64_t)value * ((int64_t)1 << bits);
    return result > 0x7fffffff ? 0x7fffffff : result < -0x7fffffff - 1 ? -0x7fffffff - 1 : (int32_t)result;
}

/* 1 / sqrt(sum), by five steps of Newton's method, as a multiplier; the places to the right go to shift. */
static int32_t inverse_root(int32_t sum, int32_t *shift)
{
    int32_t x = (int32_t)1 << 28, half, i; /* 1 with 3 integer bits */
    *shift = 0;
    if (sum <= 1)
        return 0x7fffffff;
    *shift = 11;
    for (; sum >= (int32_t)1 << 29; sum /= 4)
        ++*shift;
    for (; sum < (int32_t)1 << 27; sum *= 4)
        --*shift;
    half = ((sum >> 1) + 1) >> 1;
    for (i = 0; i < 5; i++) {
        const int32_t cube = times_power(high_mul(high_mul(x, x), x), 6);
        x = times_power(high_mul(((int32_t)1 << 28) + ((int32_t)1 << 27), x) - high_mul(half, cube), 3);
    }
    x = high_mul(x, 1518500250); /* sqrt(1 / 2) */
    if (*shift < 0) {
        x = (int32_t)((uint32_t)x << -*shift);
        *shift = 0;
    }
    return x;
}

static void l2_normalization(const int8_t *x, int8_t *y, int32_t rows, int32_t n, int32_t zero)
{
    int32_t row, i;
    for (row = 0; row < rows; row++, x += n, y += n) {
        int32_t sum = 0, multiplier, shift;
        for (i = 0; i < n; i++)
            sum += (x[i] - zero) * (x[i] - zero);
        multiplier = inverse_root(sum, &shift);
        for (i = 0; i < n; i++) {
            const int32_t value = requantize_wide(x[i] - zero, multiplier, -64 - (7 - shift), 0);
            y[i] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
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
//@ requantize_64: base
/* value * multiplier / 2^shift, rounded to nearest with halves up and limited to int16; multiplier has 15 bits. */
static inline int32_t requantize_64(int64_t value, int32_t multiplier, int32_t shift)
{
    const int64_t result = (value * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
    return result > 32767 ? 32767 : result < -32768 ? -32768 : (int32_t)result;
}
//@ weighted_16: requantize requantize_64
/* Layers of int16 activations and int8 weights. Biases of 64 bits have sums of 64 bits; narrow ones wrap at 32 bits and
   are rescaled as those of int8 activations. */
struct weighted_16 {
    const int8_t *weights; /* taps of each output; depthwise: outputs of each tap */
    const int64_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t narrow, low, high;
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
};

static int16_t scaled_16(const struct weighted_16 *s, int64_t sum, int32_t output)
{
    int32_t value;
    sum += s->bias[output];
    value = s->narrow ? requantize((int32_t)(uint32_t)sum, s->multiplier[output], s->shift[output], 0)
                      : requantize_64(sum, s->multiplier[output], s->shift[output]);
    value = value < s->low ? s->low : value;
    return (int16_t)(value > s->high ? s->high : value);
}
//@ dot_16: base
/* 256 products of 22 bits fit in 32 bits. */
static int64_t dot_16(const int8_t *w, const int16_t *x, int32_t n)
{
    int64_t sum = 0;
    while (n > 0) {
        const int8_t *const end = w + (n < 256 ? n : 256);
        int32_t part = 0;
        n -= 256;
#ifdef DUAL_MAC
        for (; end - w >= 4; w += 4, x += 4) {
            const uint32_t weights = *(const unaligned_word *)(const void *)w;
            const uint32_t first = *(const unaligned_word *)(const void *)x;
            const uint32_t second = *(const unaligned_word *)(const void *)(x + 2);
            uint32_t even, odd;
            __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(even) : "r"(first), "r"(second));
            __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(odd) : "r"(second), "r"(first));
            part = (int32_t)mac_2(even_bytes(weights), even, (uint32_t)part);
            part = (int32_t)mac_2(odd_bytes(weights), odd, (uint32_t)part);
        }
#endif
        while (w < end)
            part += *w++ * *x++;
        sum += part;
    }
    return sum;
}
//@ conv_2d_16: weighted_16 dot_16
static void conv_2d_16(const struct weighted_16 *s, const int16_t *x, int16_t *y)
{
    const int32_t channels = s->channels;
    int32_t row, column, output, i, j;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            const int8_t *w = s->weights;
            for (output = 0; output < s->outputs; output++) {
                int64_t sum = 0;
                int32_t at_row = row * s->stride_height - s->pad_top;
                for (i = 0; i < s->kernel_height; i++, at_row += s->dilation_height) {
                    int32_t at = column * s->stride_width - s->pad_left;
                    for (j = 0; j < s->kernel_width; j++, at += s->dilation_width, w += channels) {
                        if (at_row >= 0 && at_row < s->in_height && at >= 0 && at < s->in_width)
                            sum += dot_16(w, x + (at_row * s->in_width + at) * channels, channels);
                    }
                }
                *y++ = scaled_16(s, sum, output);
            }
        }
    }
}
//@ depthwise_conv_2d_16: weighted_16
static void depthwise_conv_2d_16(const struct weighted_16 *s, const int16_t *x, int16_t *y)
{
    const int32_t channels = s->channels, multiplier = s->outputs / channels;
    int32_t row, column, channel, k, i, j;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            for (channel = 0; channel < channels; channel++) {
                for (k = channel * multiplier; k < (channel + 1) * multiplier; k++) {
                    const int8_t *w = s->weights + k;
                    int64_t sum = 0;
                    int32_t at_row = row * s->stride_height - s->pad_top;
                    for (i = 0; i < s->kernel_height; i++, at_row += s->dilation_height) {
                        int32_t at = column * s->stride_width - s->pad_left;
                        for (j = 0; j < s->kernel_width; j++, at += s->dilation_width, w += s->outputs) {
                            if (at_row >= 0 && at_row < s->in_height && at >= 0 && at < s->in_width)
                                sum += *w * x[(at_row * s->in_width + at) * channels + channel];
                        }
                    }
                    *y++ = scaled_16(s, sum, k);
                }
            }
        }
    }
}
//@ transpose_conv_16: weighted_16 dot_16
/* Each output gathers the inputs whose kernels reach it: those for which tap and stride fit. */
static void transpose_conv_16(const struct weighted_16 *s, const int16_t *x, int16_t *y)
{
    int32_t row, column, output, i, j;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            const int8_t *w = s->weights;
            for (output = 0; output < s->outputs; output++) {
                int64_t sum = 0;
                for (i = 0; i < s->kernel_height; i++) {
                    const int32_t down = row + s->pad_top - i, in_row = down / s->stride_height;
                    for (j = 0; j < s->kernel_width; j++, w += s->channels) {
                        const int32_t right = column + s->pad_left - j, in_column = right / s->stride_width;
                        if (down >= 0 && in_row * s->stride_height == down && in_row < s->in_height && right >= 0 &&
                            in_column * s->stride_width == right && in_column < s->in_width)
                            sum += dot_16(w, x + (in_row * s->in_width + in_column) * s->channels, s->channels);
                    }
                }
                *y++ = scaled_16(s, sum, output);
            }
        }
    }
}
//@ fully_connected_16: weighted_16 dot_16
/* out_height rows of channels */
static void fully_connected_16(const struct weighted_16 *s, const int16_t *x, int16_t *y)
{
    int32_t row, output;
    for (row = 0; row < s->out_height; row++, x += s->channels) {
        for (output = 0; output < s->outputs; output++)
            *y++ = scaled_16(s, dot_16(s->weights + output * s->channels, x, s->channels), output);
    }
}
//@ pool_16: pool
/* The largest value under each window, or the mean of those inside the image, rounded with halves away from zero */
static void pool_16(const struct pool *s, const int16_t *x, int16_t *y, int32_t largest)
{
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t start = row * s->stride_height - s->pad_top, end = start + s->kernel_height;
        const int32_t top = start > 0 ? start : 0, bottom = end < s->in_height ? end : s->in_height;
        for (column = 0; column < s->out_width; column++) {
            const int32_t from = column * s->stride_width - s->pad_left, to = from + s->kernel_width;
            const int32_t left = from > 0 ? from : 0, right = to < s->in_width ? to : s->in_width;
            const int32_t count = (bottom - top) * (right - left), half = count / 2;
            for (c = 0; c < s->channels; c++) {
                int32_t sum = 0, most = -32768, value;
                for (i = top; i < bottom; i++) {
                    for (j = left; j < right; j++) {
                        value = x[(i * s->in_width + j) * s->channels + c];
                        sum += value;
                        most = value > most ? value : most;
                    }
                }
                value = largest ? most : (sum > 0 ? sum + half : sum - half) / count;
                value = value < s->low ? s->low : value;
                *y++ = (int16_t)(value > s->high ? s->high : value);
            }
        }
    }
}
//@ mean_16: mean_settings requantize clamp_16
static void mean_16(const struct mean *s, const int16_t *x, int16_t *y)
{
    const int32_t line = s->again * s->inner;
    int32_t outer, middle, inner, i, j;
    for (outer = 0; outer < s->outer; outer++, x += s->reduced * s->middle * line) {
        for (middle = 0; middle < s->middle; middle++) {
            for (inner = 0; inner < s->inner; inner++) {
                const int16_t *from = x + middle * line + inner;
                int32_t sum = 0;
                for (i = 0; i < s->reduced; i++, from += s->middle * line) {
                    for (j = 0; j < line; j += s->inner)
                        sum += from[j];
                }
                *y++ = clamp_16(requantize(sum, s->multiplier, s->shift, 0));
            }
        }
    }
}
//@ pairs_16: binary
/* y = value(s, a, b) for each pair of operands, limited */
static void pairs_16(const struct binary *s, const int16_t *a, const int16_t *b, int16_t *y,
                     int32_t (*value)(const struct binary *, int32_t, int32_t))
{
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int16_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int16_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = 0; l < s->size[3]; l++, p += s->stride_a[3], q += s->stride_b[3]) {
                    const int32_t made = value(s, *p, *q);
                    *y++ = (int16_t)(made < s->low ? s->low : made > s->high ? s->high : made);
                }
            }
        }
    }
}
//@ add_16: pairs_16
/* Both operands, shifted left by 15 bits, are rescaled to twice the larger of their scales. */
static int32_t add_16(const struct binary *s, int32_t a, int32_t b)
{
    const int32_t u = requantize(a * ((int32_t)1 << s->left_a), s->multiplier_a, s->shift_a, 0);
    const int32_t v = requantize(b * ((int32_t)1 << s->left_b), s->multiplier_b, s->shift_b, 0);
    return requantize(u + v, s->multiplier, s->shift, 0);
}
//@ sub_16: pairs_16
static int32_t sub_16(const struct binary *s, int32_t a, int32_t b)
{
    const int32_t u = requantize(a * ((int32_t)1 << s->left_a), s->multiplier_a, s->shift_a, 0);
    const int32_t v = requantize(b * ((int32_t)1 << s->left_b), s->multiplier_b, s->shift_b, 0);
    return requantize(u - v, s->multiplier, s->shift, 0);
}
//@ mul_16: pairs_16
static int32_t mul_16(const struct binary *s, int32_t a, int32_t b)
{
    return requantize(a * b, s->multiplier, s->shift, 0);
}
//@ larger_16: pairs_16
static int32_t larger_16(const struct binary *s, int32_t a, int32_t b)
{
    (void)s;
    return a > b ? a : b;
}
//@ smaller_16: pairs_16
static int32_t smaller_16(const struct binary *s, int32_t a, int32_t b)
{
    (void)s;
    return a < b ? a : b;
}
//@ rescale_16: requantize
/* Values from zero up have the first factor, values below the second; widths are bytes, of which one is above 1. */
struct rescale_16 {
    int32_t in_width, out_width, in_zero, out_zero;
    int32_t multiplier[2], shift[2], low, high;
};

static void rescale_16(const struct rescale_16 *s, const int8_t *x, int8_t *y, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        const int32_t value = (s->in_width == 1 ? x[i] : ((const int16_t *)(const void *)x)[i]) - s->in_zero;
        int32_t made = requantize(value, s->multiplier[value < 0], s->shift[value < 0], s->out_zero);
        made = made < s->low ? s->low : made > s->high ? s->high : made;
        if (s->out_width == 1)
            y[i] = (int8_t)made;
        else if (s->out_width == 4)
            ((int32_t *)(void *)y)[i] = made;
        else
            ((int16_t *)(void *)y)[i] = (int16_t)made;
    }
}
//@ logistic_16: sigmoid_16
/* value * multiplier / 2^shift has scale 2^-12 / 3. */
static void logistic_16(const int16_t *x, int16_t *y, int32_t n, int32_t multiplier, int32_t shift)
{
    for (; n > 0; n--)
        *y++ = sigmoid_16((*x++ * multiplier + (((int32_t)1 << shift) >> 1)) >> shift);
}
//@ hyperbolic_16: sigmoid_16
static void hyperbolic_16(const int16_t *x, int16_t *y, int32_t n, int32_t multiplier, int32_t shift)
{
    for (; n > 0; n--)
        *y++ = tanh_16((*x++ * multiplier + (((int32_t)1 << shift) >> 1)) >> shift);
}
//@ softmax_16: requantize clamp_16
/* Between two of 513 entries, for -32768 to 32767 */
static int32_t softmax_between(const int16_t *table, int32_t value)
{
    const int16_t *const entry = table + 256 + (value >> 7);
    return *entry + (((entry[1] - *entry) * (value & 127) + 64) >> 7);
}

/* tables: exp(x) from -10 to 0, then 1 / (1 + x) from 0 to 1 */
static void softmax_16(const int16_t (*tables)[513], const int16_t *x, int16_t *y, int32_t rows, int32_t n,
                       int32_t multiplier, int32_t shift)
{
    int32_t row, i;
    for (row = 0; row < rows; row++, x += n, y += n) {
        int32_t largest = -32768, sum = 0, zeros = 0, part;
        int64_t scale;
        for (i = 0; i < n; i++)
            largest = x[i] > largest ? x[i] : largest;
        for (i = 0; i < n; i++) {
            part = requantize(x[i] - largest, multiplier, shift, 0) + 32767;
            y[i] = (int16_t)softmax_between(tables[0], clamp_16(part));
            sum += y[i];
        }
        while (((uint32_t)sum << zeros) < 0x80000000u)
            zeros++;
        part = (int32_t)((((int64_t)sum << (zeros - 1)) + (1 << 13)) >> 14);
        scale = softmax_between(tables[1], clamp_16(part - 98304));
        for (i = 0; i < n; i++) {
            part = (int32_t)((y[i] * scale + ((int64_t)1 << (30 - zeros))) >> (31 - zeros));
            y[i] = (int16_t)(part < 0 ? 0 : part > 32767 ? 32767 : part);
        }
    }
}
