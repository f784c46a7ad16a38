/* Kernels for Helium, the vector unit of Cortex-M55 and M85: these sections replace those of the same name in kernels.c
   if the compiler supports it. The results are bit-exact, and the declared orders are the same. */
//@ mve: base
#include <arm_mve.h>

/* requantize() of four values without its zero point; `right` is minus the shift */
__attribute__((unused)) static inline int32x4_t requantize_4(int32x4_t high, int32x4_t right)
{
    const int32x4_t away = vshrq_n_s32(vandq_s32(high, right), 31); /* -1 if both are negative */
    return vrshlq_s32(vaddq_s32(high, away), right);
}

/* Whether requantize_4() may be used for all n shifts */
__attribute__((unused)) static inline int32_t plain_shifts(const int8_t *shift, int32_t n)
{
    while (n > 0 && *shift >= 0) {
        n--;
        shift++;
    }
    return n == 0;
}
//@ rows: mve requantize clamp
/* Weights of outputs, `stride` bytes apart; up to twelve bytes after the last may be read. plain: whether
   requantize_4() may be used. */
struct rows {
    const int8_t *weights;
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t taps, stride, outputs, out_zero, low, high, plain;
};

/* One output at a time: for fewer than four, and for shifts that need 64 bits */
static void rows_times_one(const struct rows *s, const int8_t *x, int8_t *y)
{
    int32_t output, i;
    for (output = 0; output < s->outputs; output++) {
        const int8_t *weights = s->weights + output * s->stride;
        int32_t sum = s->bias[output];
        for (i = 0; i < s->taps; i += 16) {
            const mve_pred16_t rest = vctp8q((uint32_t)(s->taps - i));
            sum = vmladavaq_s8(sum, vldrbq_z_s8(x + i, rest), vldrbq_z_s8(weights + i, rest));
        }
        y[output] = clamp(requantize(sum, s->multiplier[output], s->shift[output], s->out_zero), s->low, s->high);
    }
}

/* All outputs of the inputs x, four at a time; if their number is not a multiple of four, the last four overlap the
   previous ones. */
__attribute__((noinline)) static void rows_times(const struct rows *s, const int8_t *x, int8_t *y)
{
    const int32_t blocks = s->taps >> 4, rest = s->taps & 15, stride = s->stride, outputs = s->outputs;
    const int32_t zero = s->out_zero;
    const int8_t *weights = s->weights, *shift = s->shift;
    const int32_t *bias = s->bias, *multiplier = s->multiplier;
    const int32x4_t low = vdupq_n_s32(s->low), high = vdupq_n_s32(s->high);
    const int8x16_t last = vldrbq_z_s8(x + 16 * blocks, vctp8q((uint32_t)rest));
    int32_t output;
    if (outputs < 4 || !s->plain) {
        rows_times_one(s, x, y);
        return;
    }
    for (output = 0; output < outputs; output += 4) {
        const int8_t *from = x, *w0, *w1, *w2, *w3;
        int32_t a = 0, b = 0, c = 0, d = 0;
        int32x4_t value;
        output = output + 4 <= outputs ? output : outputs - 4;
        w0 = weights + output * stride;
        w1 = w0 + stride;
        w2 = w1 + stride;
        w3 = w2 + stride;
        __asm__ volatile("wls lr, %[blocks], 2f\n"
                         "1:\n"
                         "vldrb.8 q0, [%[x]], #16\n"
                         "vldrb.8 q1, [%[w0]], #16\n"
                         "vmladava.s8 %[a], q0, q1\n"
                         "vldrb.8 q2, [%[w1]], #16\n"
                         "vmladava.s8 %[b], q0, q2\n"
                         "vldrb.8 q1, [%[w2]], #16\n"
                         "vmladava.s8 %[c], q0, q1\n"
                         "vldrb.8 q2, [%[w3]], #16\n"
                         "vmladava.s8 %[d], q0, q2\n"
                         "le lr, 1b\n"
                         "2:"
                         : [a] "+Te"(a), [b] "+Te"(b), [c] "+Te"(c), [d] "+Te"(d), [x] "+r"(from), [w0] "+r"(w0),
                           [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3)
                         : [blocks] "r"(blocks)
                         : "q0", "q1", "q2", "lr", "memory");
        if (rest) {
            a = vmladavaq_s8(a, last, vldrbq_s8(w0));
            b = vmladavaq_s8(b, last, vldrbq_s8(w1));
            c = vmladavaq_s8(c, last, vldrbq_s8(w2));
            d = vmladavaq_s8(d, last, vldrbq_s8(w3));
        }
        __asm__("vmov %q0[2], %q0[0], %1, %3\n"
                "vmov %q0[3], %q0[1], %2, %4"
                : "=&w"(value)
                : "r"(a), "r"(b), "r"(c), "r"(d));
        value = vaddq_s32(value, vldrwq_s32(bias + output));
        value = vqrdmulhq_s32(value, vldrwq_s32(multiplier + output));
        value = vaddq_n_s32(requantize_4(value, vnegq_s32(vldrbq_s32(shift + output))), zero);
        vstrbq_s32(y + output, vminq_s32(vmaxq_s32(value, low), high));
    }
}
//@ conv_2d (pixels): conv_2d_settings rows
static inline int8_t *column_fill(int8_t value, int32_t n, int8_t *to)
{
    for (; n > 0; n--)
        *to++ = value;
    return to;
}

static inline int8_t *column_copy(const int8_t *x, int32_t n, int8_t *to)
{
    for (; n >= 16; n -= 16, x += 16, to += 16)
        vstrbq_s8(to, vldrbq_s8(x));
    if (n > 0) {
        const mve_pred16_t rest = vctp8q((uint32_t)n);
        vstrbq_p_s8(to, vldrbq_z_s8(x, rest), rest);
    }
    return to + n;
}

/* One column, for the kernel at (row, column), which may be partly outside */
static void conv_2d_gather(const struct conv_2d *s, const int8_t *x, int32_t row, int32_t column, int8_t *to)
{
    const int32_t step = s->dilation_width, width = s->kernel_width, channels = s->channels;
    const int8_t zero = (int8_t)s->in_zero;
    int32_t first = 0, last = width; /* taps first to last - 1 are inside */
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
            to = column_fill(zero, width * channels, to);
            continue;
        }
        to = column_fill(zero, first * channels, to);
        if (step == 1) {
            to = column_copy(from, (last - first) * channels, to);
        } else {
            for (j = first; j < last; j++, from += step * channels)
                to = column_copy(from, channels, to);
        }
        to = column_fill(zero, (width - last) * channels, to);
    }
}

/* columns: room for two columns of taps as int16, of which one of int8 needs half at most, up to sixteen bytes more */
static void conv_2d(const struct conv_2d *s, const int8_t *x, int8_t *y, int16_t *columns)
{
    const int32_t taps = (s->kernel_height * s->kernel_width * s->channels + 3) & ~(int32_t)3;
    const struct rows rows = {s->weights, s->bias, s->multiplier, s->shift, taps, taps, s->outputs,
                              s->out_zero, s->low, s->high, plain_shifts(s->shift, s->outputs)};
    /* the order of the weights, within each four: 0 2 1 3 */
    const uint8x16_t order = vaddq_u8(vreinterpretq_u8_u32(vdupq_n_u32(0x03010200)),
                                      vandq_u8(vidupq_n_u8(0, 1), vdupq_n_u8(0xfc)));
    int8_t *const to = (int8_t *)columns;
    int32_t row, column, i;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++, y += s->outputs) {
            conv_2d_gather(s, x, row * s->stride_height - s->pad_top, column * s->stride_width - s->pad_left, to);
            SETTLE();
            for (i = 0; i < taps; i += 16)
                vstrbq_u8((uint8_t *)to + i, vldrbq_gather_offset_u8((uint8_t *)to + i, order));
            rows_times(&rows, to, y);
        }
    }
}
//@ depthwise_conv_2d (channels): depthwise_conv_2d_settings requantize clamp fill_16 mve
/* A channel's plane by lines; four outputs of a line, its lanes, are computed at once. Lines are rows, or columns where
   that makes fewer fours. Distances are in elements; x and y are those of the channel. */
struct lines {
    int32_t in_lines, in_lanes, x_line, x_lane;
    int32_t pad_line, pad_lane, length; /* of the plane */
    int32_t out_lines, out_lanes, y_line, y_lane;
    int32_t kernel_lines, kernel_lanes, w_line, w_lane, stride_line, stride_lane, dilation_line, dilation_lane;
};

static void depthwise_conv_2d_fill(const struct lines *s, const int8_t *x, int16_t *plane)
{
    const uint32x4_t apart = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)s->x_lane);
    int32_t line, left;
    plane += s->pad_line * s->length + s->pad_lane;
    for (line = 0; line < s->in_lines; line++) {
        const int8_t *from = x + line * s->x_line;
        int16_t *to = plane + line * s->length;
        for (left = s->in_lanes; left >= 4; left -= 4, from += 4 * s->x_lane, to += 4)
            vstrhq_s32(to, vldrbq_gather_offset_s32(from, apart));
        if (left > 0) {
            const mve_pred16_t rest = vctp32q((uint32_t)left);
            vstrhq_p_s32(to, vldrbq_gather_offset_z_s32(from, apart, rest), rest);
        }
    }
}

/* One channel of the output from its plane. Six bytes per step of a lane may be read after the plane. */
static void depthwise_conv_2d_plane(const struct depthwise_conv_2d *s, const struct lines *l, const int16_t *plane,
                                    int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], shift = s->shift[output], zero = s->out_zero;
    const uint32x4_t lanes = vidupq_n_u32(0, 1), apart = vmulq_n_u32(lanes, (uint32_t)l->stride_lane);
    const uint32x4_t to = vmulq_n_u32(lanes, (uint32_t)l->y_lane);
    const int8_t *const weights = s->weights + output * s->kernel_height * s->kernel_width;
    int32_t line, left, i, j;
    for (line = 0; line < l->out_lines; line++) {
        const int16_t *first = plane + line * l->stride_line * l->length;
        int8_t *out = y + line * l->y_line;
        for (left = l->out_lanes; left > 0; left -= 4, first += 4 * l->stride_lane, out += 4 * l->y_lane) {
            const int16_t *x = first;
            int32x4_t sum = vdupq_n_s32(s->bias[output]);
            for (i = 0; i < l->kernel_lines; i++, x += l->dilation_line * l->length) {
                const int8_t *w = weights + i * l->w_line;
                const int16_t *from = x;
                for (j = l->kernel_lanes; j > 0; j--, from += l->dilation_lane, w += l->w_lane)
                    sum = vmlaq_n_s32(sum, vldrhq_gather_shifted_offset_s32(from, apart), *w);
            }
            if (shift >= 0) {
                sum = requantize_4(vqrdmulhq_n_s32(sum, m), vdupq_n_s32(-shift));
                sum = vmaxq_s32(vaddq_n_s32(sum, zero), vdupq_n_s32(s->low));
                sum = vminq_s32(sum, vdupq_n_s32(s->high));
                vstrbq_scatter_offset_p_s32(out, to, sum, vctp32q((uint32_t)left));
            } else {
                int32_t sums[4];
                vstrwq_s32(sums, sum);
                for (i = 0; i < 4 && i < left; i++)
                    out[i * l->y_lane] = clamp(requantize(sums[i], m, shift, zero), s->low, s->high);
            }
        }
    }
}

/* The same for 3 x 3 taps, lane by lane, and a shift of 0 to 31 */
static void depthwise_conv_2d_3x3(const struct depthwise_conv_2d *s, const struct lines *l, const int16_t *plane,
                                  int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], zero = s->out_zero, bias = s->bias[output];
    const int32_t length = l->length, step = l->stride_line * length, out_lanes = l->out_lanes, next = 4 * l->y_lane;
    const int32_t y_line = l->y_line;
    const uint32x4_t to = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)l->y_lane);
    const int32x4_t right = vdupq_n_s32(-s->shift[output]), low = vdupq_n_s32(s->low), high = vdupq_n_s32(s->high);
    const int8_t *const weights = s->weights + output * 9;
    int32_t w[9], line, left, i;
    for (i = 0; i < 9; i++)
        w[i] = weights[i / 3 * l->w_line + i % 3 * l->w_lane];
    for (line = l->out_lines; line > 0; line--, plane += step, y += y_line) {
        const int16_t *x0 = plane, *x1 = plane + length, *x2 = x1 + length;
        int8_t *out = y;
        for (left = out_lanes; left > 0; left -= 4, x0 += 4, x1 += 4, x2 += 4, out += next) {
            int32x4_t sum = vdupq_n_s32(bias);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x0), w[0]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x0 + 1), w[1]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x0 + 2), w[2]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x1), w[3]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x1 + 1), w[4]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x1 + 2), w[5]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x2), w[6]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x2 + 1), w[7]);
            sum = vmlaq_n_s32(sum, vldrhq_s32(x2 + 2), w[8]);
            sum = vaddq_n_s32(requantize_4(vqrdmulhq_n_s32(sum, m), right), zero);
            sum = vminq_s32(vmaxq_s32(sum, low), high);
            if (left >= 4)
                vstrbq_scatter_offset_s32(out, to, sum);
            else
                vstrbq_scatter_offset_p_s32(out, to, sum, vctp32q((uint32_t)left));
        }
    }
}

/* plane: room for one channel */
static void depthwise_conv_2d(const struct depthwise_conv_2d *s, const int8_t *x, int8_t *y, int16_t *plane)
{
    const int32_t multiplier = s->outputs / s->channels;
    const int32_t below = s->plane_height - s->pad_top, beside = s->plane_width - s->pad_left;
    const int32_t height = below < s->in_height ? below : s->in_height;
    const int32_t width = beside < s->in_width ? beside : s->in_width;
    const struct lines rows = {height, width, s->in_width * s->channels, s->channels,
                               s->pad_top, s->pad_left, s->plane_width,
                               s->out_height, s->out_width, s->out_width * s->outputs, s->outputs,
                               s->kernel_height, s->kernel_width, s->kernel_width, 1,
                               s->stride_height, s->stride_width, s->dilation_height, s->dilation_width};
    const struct lines columns = {width, height, s->channels, s->in_width * s->channels,
                                  s->pad_left, s->pad_top, s->plane_height,
                                  s->out_width, s->out_height, s->outputs, s->out_width * s->outputs,
                                  s->kernel_width, s->kernel_height, 1, s->kernel_width,
                                  s->stride_width, s->stride_height, s->dilation_width, s->dilation_height};
    const int32_t upright = s->out_width * ((s->out_height + 3) >> 2) < s->out_height * ((s->out_width + 3) >> 2);
    const struct lines *const l = upright ? &columns : &rows;
    const int32_t three = l->kernel_lines == 3 && l->kernel_lanes == 3 && l->stride_lane == 1 &&
                          l->dilation_lane == 1 && l->dilation_line == 1;
    int32_t channel, i;
    fill_16((int16_t)s->in_zero, s->plane_height * s->plane_width, plane);
    for (channel = 0; channel < s->channels; channel++) {
        SETTLE();
        depthwise_conv_2d_fill(l, x + channel, plane);
        SETTLE();
        for (i = channel * multiplier; i < (channel + 1) * multiplier; i++) {
            if (three && s->shift[i] >= 0)
                depthwise_conv_2d_3x3(s, l, plane, i, y + i);
            else
                depthwise_conv_2d_plane(s, l, plane, i, y + i);
        }
    }
}
//@ fully_connected: fully_connected_settings rows
static void fully_connected(const struct fully_connected *s, const int8_t *x, int8_t *y)
{
    const struct rows rows = {s->weights, s->bias, s->multiplier, s->shift, s->taps, (s->taps + 3) & ~(int32_t)3,
                              s->outputs, s->out_zero, s->low, s->high, plain_shifts(s->shift, s->outputs)};
    int32_t row;
    for (row = 0; row < s->rows; row++)
        rows_times(&rows, x + row * s->taps, y + row * s->outputs);
}
//@ max_pool_2d (pixels): pool mve
/* Sixteen channels at a time */
static void max_pool_2d(const struct pool *s, const int8_t *x, int8_t *y)
{
    const int8x16_t low = vdupq_n_s8((int8_t)s->low), high = vdupq_n_s8((int8_t)s->high);
    int32_t row, column, c, i, j;
    for (row = 0; row < s->out_height; row++) {
        const int32_t y0 = row * s->stride_height - s->pad_top, y1 = y0 + s->kernel_height;
        const int32_t top = y0 < 0 ? 0 : y0, bottom = y1 > s->in_height ? s->in_height : y1;
        for (column = 0; column < s->out_width; column++, y += s->channels) {
            const int32_t x0 = column * s->stride_width - s->pad_left, x1 = x0 + s->kernel_width;
            const int32_t left = x0 < 0 ? 0 : x0, right = x1 > s->in_width ? s->in_width : x1;
            const int8_t *corner = x + (top * s->in_width + left) * s->channels;
            for (c = 0; c < s->channels; c += 16) {
                const mve_pred16_t rest = vctp8q((uint32_t)(s->channels - c));
                const int8_t *line = corner + c;
                int8x16_t largest = vdupq_n_s8(-128);
                for (i = top; i < bottom; i++, line += s->in_width * s->channels) {
                    const int8_t *from = line;
                    for (j = left; j < right; j++, from += s->channels)
                        largest = vmaxq_s8(largest, vldrbq_z_s8(from, rest));
                }
                vstrbq_p_s8(y + c, vminq_s8(vmaxq_s8(largest, low), high), rest);
            }
        }
    }
}
//@ add (values): binary mve
/* Four values at a time: adjacent, or one value repeated */
static inline int32x4_t add_operand(const int8_t *x, int32_t stride, mve_pred16_t rest, int32_t zero, int32_t unit,
                                    int32_t multiplier, int32_t shift)
{
    const int32x4_t value = stride ? vldrbq_z_s32(x, rest) : vdupq_n_s32(*x);
    const int32x4_t scaled = vmulq_n_s32(vsubq_n_s32(value, zero), unit);
    return requantize_4(vqrdmulhq_n_s32(scaled, multiplier), vdupq_n_s32(-shift));
}

/* Both operands, shifted left by 20 bits, are rescaled to twice the larger of their scales. */
static void add(const struct binary *s, const int8_t *a, const int8_t *b, int8_t *y, int32_t sign)
{
    const int32_t zero = s->out_zero, low = s->low, high = s->high, stride_a = s->stride_a[3], stride_b = s->stride_b[3];
    const int32_t unit_a = (int32_t)1 << s->left_a, unit_b = sign * ((int32_t)1 << s->left_b);
    const int32_t fours = stride_a <= 1 && stride_b <= 1 && s->shift_a >= 0 && s->shift_b >= 0 && s->shift >= 0;
    int32_t i, j, k, l;
    for (i = 0; i < s->size[0]; i++) {
        for (j = 0; j < s->size[1]; j++) {
            for (k = 0; k < s->size[2]; k++) {
                const int8_t *p = a + i * s->stride_a[0] + j * s->stride_a[1] + k * s->stride_a[2];
                const int8_t *q = b + i * s->stride_b[0] + j * s->stride_b[1] + k * s->stride_b[2];
                for (l = s->size[3]; fours && l > 0; l -= 4, p += 4 * stride_a, q += 4 * stride_b) {
                    const mve_pred16_t rest = vctp32q((uint32_t)l);
                    const int32x4_t u = add_operand(p, stride_a, rest, s->zero_a, unit_a, s->multiplier_a, s->shift_a);
                    const int32x4_t v = add_operand(q, stride_b, rest, s->zero_b, unit_b, s->multiplier_b, s->shift_b);
                    int32x4_t sum = vqrdmulhq_n_s32(vaddq_s32(u, v), s->multiplier);
                    sum = vaddq_n_s32(requantize_4(sum, vdupq_n_s32(-s->shift)), zero);
                    vstrbq_p_s32(y, vminq_s32(vmaxq_s32(sum, vdupq_n_s32(low)), vdupq_n_s32(high)), rest);
                    y += l < 4 ? l : 4;
                }
                for (; l > 0; l--, p += stride_a, q += stride_b) {
                    const int32_t u = requantize((*p - s->zero_a) * unit_a, s->multiplier_a, s->shift_a, 0);
                    const int32_t v = requantize((*q - s->zero_b) * unit_b, s->multiplier_b, s->shift_b, 0);
                    *y++ = clamp(requantize(u + v, s->multiplier, s->shift, zero), low, high);
                }
            }
        }
    }
}
