/* The kernels of the generated code. Sections begin with a line "//@ name: what it needs"; the generator copies
   those that a model uses. All arithmetic is that of TFLite Micro's reference kernels, see docs/c99.md. */
//@ base:
#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(4)))
#else
#define ALIGNED
#endif

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN)
#define DUAL_MAC 1 /* Cortex-M4, M7, M33 and the like: two multiply-accumulates in one instruction */
typedef uint32_t __attribute__((may_alias)) word;
typedef uint32_t __attribute__((may_alias, aligned(1))) unaligned_word;

/* bytes 0 and 2, or 1 and 3, as two int16 */
static inline uint32_t even_bytes(uint32_t value)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(value));
    return result;
}

static inline uint32_t odd_bytes(uint32_t value)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(value));
    return result;
}

/* sum + low(a) * low(b) + high(a) * high(b) of int16 halves */
static inline uint32_t mac_2(uint32_t a, uint32_t b, uint32_t sum)
{
    uint32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#endif
//@ requantize: base
/* value * multiplier / 2^(31 + shift) with gemmlowp's two roundings: to nearest with halves up, then with halves away
   from zero. The generator has checked that nothing overflows, |value| < 2^30 among others. */
static inline int32_t requantize(int32_t value, int32_t multiplier, int32_t shift)
{
#ifdef DUAL_MAC
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value * 2), "r"(multiplier));
#else
    int32_t high = (int32_t)(((int64_t)value * multiplier + ((int32_t)1 << 30)) >> 31);
#endif
    if (shift > 0)
        high = (high + (high >> 31) + ((int32_t)1 << (shift - 1))) >> shift;
    return high;
}
//@ requantize_any: base
/* As the above for shifts >= 0; -64 - n stands for n places to the left (to the right where n < 0) with values that
   need 64 bits. */
static int32_t requantize_wide(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = -64 - shift, right = left < 0 ? -left : 0;
    const uint32_t shifted = (uint32_t)value << (left > 0 ? left : 0);
    int64_t high = ((int64_t)(int32_t)shifted * multiplier + ((int64_t)1 << 30)) >> 31;
    if (right > 0)
        high = (high + (high >> 63) + ((int64_t)1 << (right - 1))) >> right;
    return (int32_t)high;
}

static inline int32_t requantize(int32_t value, int32_t multiplier, int32_t shift)
{
    int32_t high;
    if (shift < 0)
        return requantize_wide(value, multiplier, shift);
#ifdef DUAL_MAC
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value * 2), "r"(multiplier));
#else
    high = (int32_t)(((int64_t)value * multiplier + ((int32_t)1 << 30)) >> 31);
#endif
    if (shift > 0)
        high = (high + (high >> 31) + ((int32_t)1 << (shift - 1))) >> shift;
    return high;
}
//@ clamp: base
static inline int8_t clamp(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return (int8_t)(value > high ? high : value);
}
//@ widen: base
/* n int8 as int16; returns where the next go */
static inline int16_t *widen(const int8_t *x, int32_t n, int16_t *to)
{
#ifdef DUAL_MAC
    for (; n >= 4; n -= 4) {
        const uint32_t four = *(const unaligned_word *)x;
        const uint32_t even = even_bytes(four), odd = odd_bytes(four);
        ((unaligned_word *)to)[0] = (even & 0xffff) | (odd << 16);
        ((unaligned_word *)to)[1] = (even >> 16) | (odd & 0xffff0000);
        x += 4;
        to += 4;
    }
#endif
    for (; n > 0; n--)
        *to++ = *x++;
    return to;
}
//@ fill_16: base
static inline int16_t *fill_16(int16_t value, int32_t n, int16_t *to)
{
    for (; n > 0; n--)
        *to++ = value;
    return to;
}
//@ conv_2d: requantize clamp widen fill_16
struct conv_2d {
    const int8_t *weights;     /* for each output its taps, in fours in the order 0 2 1 3, filled up with zeros */
    const int32_t *bias;       /* for each output, minus the input's zero point times the sum of its weights */
    const int32_t *multiplier; /* for each output */
    const int8_t *shift;       /* for each output */
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
    int32_t in_zero, out_zero, low, high;
};

/* The inputs under the kernel at (row, column), which may lie outside, as one column. */
static void conv_2d_gather(const struct conv_2d *s, const int8_t *x, int32_t row, int32_t column, int16_t *to)
{
    const int32_t step = s->dilation_width, zero = s->in_zero;
    int32_t first = column < 0 ? (step - 1 - column) / step : 0;
    int32_t last = (s->in_width - column + step - 1) / step; /* the taps from first up to last lie inside */
    int32_t i, j;
    first = first < s->kernel_width ? first : s->kernel_width;
    last = last < s->kernel_width ? last : s->kernel_width;
    last = last > first ? last : first;
    for (i = 0; i < s->kernel_height; i++, row += s->dilation_height) {
        if (row < 0 || row >= s->in_height) {
            to = fill_16((int16_t)zero, s->kernel_width * s->channels, to);
            continue;
        }
        to = fill_16((int16_t)zero, first * s->channels, to);
        if (step == 1) {
            to = widen(x + (row * s->in_width + column + first) * s->channels, (last - first) * s->channels, to);
        } else {
            for (j = first; j < last; j++)
                to = widen(x + (row * s->in_width + column + j * step) * s->channels, s->channels, to);
        }
        to = fill_16((int16_t)zero, (s->kernel_width - last) * s->channels, to);
    }
}

/* Two outputs of two columns, or with one column */
static inline void conv_2d_dot(const int8_t *w0, const int8_t *w1, const int16_t *x, int32_t taps, int32_t columns,
                               uint32_t *sum)
{
    uint32_t a0 = sum[0], a1 = sum[1], b0 = sum[0], b1 = sum[1];
    const int16_t *x0 = x, *x1 = x + taps;
#ifdef DUAL_MAC
    const int16_t *end = x1;
    if (columns == 2) {
        do {
            const uint32_t v = *(const word *)w0, u = *(const word *)w1;
            const uint32_t ve = even_bytes(v), vo = odd_bytes(v), ue = even_bytes(u), uo = odd_bytes(u);
            const uint32_t p = ((const word *)x0)[0], q = ((const word *)x0)[1];
            const uint32_t r = ((const word *)x1)[0], s = ((const word *)x1)[1];
            a0 = mac_2(ve, p, a0);
            a1 = mac_2(ue, p, a1);
            a0 = mac_2(vo, q, a0);
            a1 = mac_2(uo, q, a1);
            b0 = mac_2(ve, r, b0);
            b1 = mac_2(ue, r, b1);
            b0 = mac_2(vo, s, b0);
            b1 = mac_2(uo, s, b1);
            w0 += 4;
            w1 += 4;
            x0 += 4;
            x1 += 4;
        } while (x0 != end);
    } else {
        do {
            const uint32_t v = *(const word *)w0, u = *(const word *)w1;
            const uint32_t p = ((const word *)x0)[0], q = ((const word *)x0)[1];
            a0 = mac_2(even_bytes(v), p, a0);
            a1 = mac_2(even_bytes(u), p, a1);
            a0 = mac_2(odd_bytes(v), q, a0);
            a1 = mac_2(odd_bytes(u), q, a1);
            w0 += 4;
            w1 += 4;
            x0 += 4;
        } while (x0 != end);
    }
#else
    int32_t k;
    if (columns == 2) {
        for (k = 0; k < taps; k += 4) {
            a0 += (uint32_t)(w0[k] * x0[k] + w0[k + 2] * x0[k + 1] + w0[k + 1] * x0[k + 2] + w0[k + 3] * x0[k + 3]);
            a1 += (uint32_t)(w1[k] * x0[k] + w1[k + 2] * x0[k + 1] + w1[k + 1] * x0[k + 2] + w1[k + 3] * x0[k + 3]);
            b0 += (uint32_t)(w0[k] * x1[k] + w0[k + 2] * x1[k + 1] + w0[k + 1] * x1[k + 2] + w0[k + 3] * x1[k + 3]);
            b1 += (uint32_t)(w1[k] * x1[k] + w1[k + 2] * x1[k + 1] + w1[k + 1] * x1[k + 2] + w1[k + 3] * x1[k + 3]);
        }
    } else {
        for (k = 0; k < taps; k += 4) {
            a0 += (uint32_t)(w0[k] * x0[k] + w0[k + 2] * x0[k + 1] + w0[k + 1] * x0[k + 2] + w0[k + 3] * x0[k + 3]);
            a1 += (uint32_t)(w1[k] * x0[k] + w1[k + 2] * x0[k + 1] + w1[k + 1] * x0[k + 2] + w1[k + 3] * x0[k + 3]);
        }
    }
#endif
    sum[0] = a0;
    sum[1] = a1;
    sum[2] = b0;
    sum[3] = b1;
}

/* columns: room for two columns of taps, in fours */
static void conv_2d(const struct conv_2d *s, const int8_t *x, int8_t *y, int16_t *columns)
{
    const int32_t taps = (s->kernel_height * s->kernel_width * s->channels + 3) & ~(int32_t)3;
    const int32_t pixels = s->out_height * s->out_width;
    int32_t pixel, column = -s->pad_left, row = -s->pad_top, across = 0, output;
    for (pixel = 0; pixel < pixels; pixel += 2) {
        const int32_t two = pixel + 1 < pixels ? 2 : 1;
        int32_t i;
        for (i = 0; i < two; i++) {
            conv_2d_gather(s, x, row, column, columns + i * taps);
            column += s->stride_width;
            if (++across == s->out_width) {
                across = 0;
                column = -s->pad_left;
                row += s->stride_height;
            }
        }
        for (output = 0; output < s->outputs; output += 2) {
            const int32_t next = output + 1 < s->outputs ? output + 1 : output;
            const int8_t *weights = s->weights + output * taps;
            const int32_t m0 = s->multiplier[output], m1 = s->multiplier[next];
            const int32_t shift0 = s->shift[output], shift1 = s->shift[next];
            int8_t *to = y + pixel * s->outputs;
            uint32_t sum[4];
            sum[0] = (uint32_t)s->bias[output];
            sum[1] = (uint32_t)s->bias[next];
            conv_2d_dot(weights, weights + (next - output) * taps, columns, taps, two, sum);
            to[output] = clamp(requantize((int32_t)sum[0], m0, shift0) + s->out_zero, s->low, s->high);
            to[next] = clamp(requantize((int32_t)sum[1], m1, shift1) + s->out_zero, s->low, s->high);
            if (two == 2) {
                to += s->outputs;
                to[output] = clamp(requantize((int32_t)sum[2], m0, shift0) + s->out_zero, s->low, s->high);
                to[next] = clamp(requantize((int32_t)sum[3], m1, shift1) + s->out_zero, s->low, s->high);
            }
        }
    }
}
//@ depthwise_conv_2d: requantize clamp fill_16
struct depthwise_conv_2d {
    const int8_t *weights; /* for each output its taps */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t in_height, in_width, channels;
    int32_t out_height, out_width, outputs;
    int32_t kernel_height, kernel_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_top, pad_left;
    int32_t plane_height, plane_width; /* one channel with its padding; the width is even */
    int32_t in_zero, out_zero, low, high;
};

#ifdef DUAL_MAC
/* A row of two outputs three taps wide: weights 0 and 1 in w01, 1 and 2 in w12 */
static inline uint32_t mac_low_high(uint32_t a, uint32_t b, uint32_t sum)
{
    uint32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline uint32_t mac_high_low(uint32_t a, uint32_t b, uint32_t sum)
{
    uint32_t result;
    __asm__("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#endif

/* One channel of the output from its plane */
static void depthwise_conv_2d_plane(const struct depthwise_conv_2d *s, const int16_t *plane, int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], shift = s->shift[output], outputs = s->outputs;
    const int8_t *weights = s->weights + output * s->kernel_height * s->kernel_width;
    const uint32_t bias = (uint32_t)s->bias[output];
    int32_t row, column, i, j;
    y += output;
#ifdef DUAL_MAC
    if (s->kernel_height == 3 && s->kernel_width == 3 && s->dilation_height == 1 && s->dilation_width == 1 &&
        s->stride_width <= 2) {
        const int32_t words = s->plane_width / 2, single = s->stride_width == 1;
        uint32_t w01[3], w12[3];
        for (i = 0; i < 3; i++) {
            w01[i] = (uint32_t)(weights[3 * i] & 0xffff) | (uint32_t)weights[3 * i + 1] << 16;
            w12[i] = (uint32_t)(weights[3 * i + 1] & 0xffff) | (uint32_t)weights[3 * i + 2] << 16;
        }
        for (row = 0; row < s->out_height; row++) {
            const word *x = (const word *)(plane + row * s->stride_height * s->plane_width);
            for (column = 0; column < s->out_width; column += 1 + single, x++) {
                const uint32_t p0 = x[0], p1 = x[1], q0 = x[words], q1 = x[words + 1];
                const uint32_t r0 = x[2 * words], r1 = x[2 * words + 1];
                uint32_t sum = mac_2(p0, w01[0], bias);
                sum = mac_low_high(p1, w12[0], sum);
                sum = mac_2(q0, w01[1], sum);
                sum = mac_low_high(q1, w12[1], sum);
                sum = mac_2(r0, w01[2], sum);
                sum = mac_low_high(r1, w12[2], sum);
                *y = clamp(requantize((int32_t)sum, m, shift) + s->out_zero, s->low, s->high);
                y += outputs;
                if (single && column + 1 < s->out_width) {
                    sum = mac_high_low(p0, w01[0], bias);
                    sum = mac_2(p1, w12[0], sum);
                    sum = mac_high_low(q0, w01[1], sum);
                    sum = mac_2(q1, w12[1], sum);
                    sum = mac_high_low(r0, w01[2], sum);
                    sum = mac_2(r1, w12[2], sum);
                    *y = clamp(requantize((int32_t)sum, m, shift) + s->out_zero, s->low, s->high);
                    y += outputs;
                }
            }
        }
        return;
    }
#endif
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++) {
            const int16_t *x = plane + row * s->stride_height * s->plane_width + column * s->stride_width;
            const int8_t *w = weights;
            uint32_t sum = bias;
            for (i = 0; i < s->kernel_height; i++) {
                for (j = 0; j < s->kernel_width; j++)
                    sum += (uint32_t)(x[j * s->dilation_width] * w[j]);
                w += s->kernel_width;
                x += s->dilation_height * s->plane_width;
            }
            *y = clamp(requantize((int32_t)sum, m, shift) + s->out_zero, s->low, s->high);
            y += outputs;
        }
    }
}

/* Channel by channel, so that y may be x where both have as many channels. plane: room for one channel. */
static void depthwise_conv_2d(const struct depthwise_conv_2d *s, const int8_t *x, int8_t *y, int16_t *plane)
{
    const int32_t multiplier = s->outputs / s->channels;
    const int32_t below = s->plane_height - s->pad_top, beside = s->plane_width - s->pad_left;
    const int32_t height = below < s->in_height ? below : s->in_height;
    const int32_t width = beside < s->in_width ? beside : s->in_width;
    int32_t channel, row, column, i;
    fill_16((int16_t)s->in_zero, s->plane_height * s->plane_width, plane);
    for (channel = 0; channel < s->channels; channel++) {
        for (row = 0; row < height; row++) {
            const int8_t *from = x + row * s->in_width * s->channels + channel;
            int16_t *to = plane + (row + s->pad_top) * s->plane_width + s->pad_left;
            for (column = 0; column < width; column++, from += s->channels)
                *to++ = *from;
        }
        for (i = 0; i < multiplier; i++)
            depthwise_conv_2d_plane(s, plane, channel * multiplier + i, y);
    }
}
//@ fully_connected: requantize clamp
struct fully_connected {
    const int8_t *weights; /* for each output its taps, filled up with zeros to a multiple of 4 */
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t rows, taps, outputs;
    int32_t out_zero, low, high;
};

static void fully_connected(const struct fully_connected *s, const int8_t *x, int8_t *y)
{
    const int32_t stride = (s->taps + 3) & ~(int32_t)3;
    int32_t row, output, k;
    for (row = 0; row < s->rows; row++, x += s->taps, y += s->outputs) {
        for (output = 0; output < s->outputs; output += 2) {
            const int32_t next = output + 1 < s->outputs ? output + 1 : output;
            const int8_t *w0 = s->weights + output * stride, *w1 = s->weights + next * stride;
            uint32_t a = (uint32_t)s->bias[output], b = (uint32_t)s->bias[next];
            k = 0;
#ifdef DUAL_MAC
            for (; k + 4 <= s->taps; k += 4) {
                const uint32_t four = *(const unaligned_word *)(x + k);
                const uint32_t u = *(const word *)(w0 + k), v = *(const word *)(w1 + k);
                const uint32_t even = even_bytes(four), odd = odd_bytes(four);
                a = mac_2(even_bytes(u), even, a);
                b = mac_2(even_bytes(v), even, b);
                a = mac_2(odd_bytes(u), odd, a);
                b = mac_2(odd_bytes(v), odd, b);
            }
#endif
            for (; k < s->taps; k++) {
                a += (uint32_t)(w0[k] * x[k]);
                b += (uint32_t)(w1[k] * x[k]);
            }
            y[output] = clamp(requantize((int32_t)a, s->multiplier[output], s->shift[output]) + s->out_zero, s->low,
                              s->high);
            y[next] = clamp(requantize((int32_t)b, s->multiplier[next], s->shift[next]) + s->out_zero, s->low, s->high);
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
//@ max_pool_2d: pool
static void max_pool_2d(const struct pool *s, const int8_t *x, int8_t *y)
{
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t y0 = row * s->stride_height - s->pad_top, y1 = y0 + s->kernel_height;
        const int32_t top = y0 < 0 ? 0 : y0, bottom = y1 > s->in_height ? s->in_height : y1;
        for (column = 0; column < s->out_width; column++) {
            const int32_t x0 = column * s->stride_width - s->pad_left, x1 = x0 + s->kernel_width;
            const int32_t left = x0 < 0 ? 0 : x0, right = x1 > s->in_width ? s->in_width : x1;
            const int8_t *corner = x + (top * s->in_width + left) * s->channels;
            for (c = 0; c < s->channels; c++, corner++) {
                const int8_t *line = corner;
                int32_t largest = -128;
                for (i = top; i < bottom; i++, line += s->in_width * s->channels) {
                    const int8_t *from = line;
                    for (j = left; j < right; j++, from += s->channels)
                        largest = *from > largest ? *from : largest;
                }
                *y++ = clamp(largest, s->low, s->high);
            }
        }
    }
}
//@ average_pool_2d: pool
/* The mean of what lies inside, rounded to nearest, halves away from zero */
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
            *y++ = clamp(requantize(sum, s->multiplier, s->shift) + s->out_zero, -128, 127);
        }
    }
}
//@ mean_same: base
/* Between equal scales and zero points: the plain integer mean, rounded towards zero */
struct mean_same {
    int32_t outer, reduced, inner;
};

static void mean_same(const struct mean_same *s, const int8_t *x, int8_t *y)
{
    int32_t outer, inner, i;
    for (outer = 0; outer < s->outer; outer++, x += s->reduced * s->inner) {
        for (inner = 0; inner < s->inner; inner++) {
            const int8_t *from = x + inner;
            int32_t sum = 0;
            for (i = 0; i < s->reduced; i++, from += s->inner)
                sum += *from;
            *y++ = (int8_t)(sum / s->reduced);
        }
    }
}
//@ binary: requantize clamp
/* Four dimensions; a stride of 0 repeats an operand. */
struct binary {
    int32_t size[4], stride_a[4], stride_b[4];
    int32_t zero_a, zero_b, out_zero, low, high;
    int32_t multiplier_a, shift_a, multiplier_b, shift_b; /* ADD and SUB only */
    int32_t multiplier, shift;
};
//@ add: binary
/* Both operands go, 20 bits to the left, to twice the larger of their scales. */
static void add(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y, int32_t sign)
{
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = 0; l < s->size[3]; l++, p += s->stride_a[3], q += s->stride_b[3]) {
                    const int32_t u = requantize((*p - s->zero_a) * (1 << 20), s->multiplier_a, s->shift_a);
                    const int32_t v = requantize((*q - s->zero_b) * (1 << 20), s->multiplier_b, s->shift_b);
                    const int32_t sum = requantize(u + sign * v, s->multiplier, s->shift);
                    *y++ = clamp(sum + s->out_zero, s->low, s->high);
                }
            }
        }
    }
}
//@ mul: binary
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
                    *y++ = clamp(requantize(product, s->multiplier, s->shift) + s->out_zero, s->low, s->high);
                }
            }
        }
    }
}
//@ lookup: base
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

/* 1 / sum, by three steps of Newton's method; the exponent goes to shift. sum has 12 integer bits, 1 at least. */
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
    half = (int32_t)(((int64_t)(shifted & 0x7fffffff) + 0x80000000) >> 1);
    x = 1515870810 + high_mul(half, -1010580540);
    for (i = 0; i < 3; i++)
        x += high_mul(x, two - high_mul(half, x)) * 4;
    return x > 0x3fffffff ? 0x7fffffff : x * 2;
}

static inline int32_t softmax_round(int32_t value, int32_t shift)
{
    return (int32_t)(((int64_t)value + ((int64_t)1 << (shift - 1))) >> shift);
}

/* table: exp of minus the distance from the largest, 0 beyond its end */
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
/* rows of n bytes, which lie stride apart in y */
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
    int32_t size[4], stride[4]; /* of the input, and how far its values lie apart in the output */
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
    int32_t size[8], stride[8]; /* of the output, and how far its values lie apart in the input */
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
    const int16_t *rows, *columns; /* which of the input each of the output is */
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
    const int16_t (*rows)[3], (*columns)[3]; /* the two of the input between which each lies, and how far, in 1024ths */
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
