/* The kernels again for Helium, the vector unit of Cortex-M55 and M85: these sections replace those of the same name
   in c99_kernels.c where the compiler has it. The results are the same to the last bit. Vectors are processed four or
   sixteen values at a time; a predicate masks what lies beyond the end, so nothing there is read or written. */
//@ mve: base
#include <arm_mve.h>

/* requantize() of four values, with shifts of 0 to 31 */
static inline int32x4_t requantize_4(int32x4_t value, int32x4_t multiplier, int32x4_t shift)
{
    const int32x4_t high = vqrdmulhq_s32(value, multiplier), right = vnegq_s32(shift);
    const int32x4_t away = vshrq_n_s32(vandq_s32(high, right), 31); /* -1 where both are negative */
    return vrshlq_s32(vaddq_s32(high, away), right);
}

static inline int32x4_t clamp_4(int32x4_t value, int32_t low, int32_t high)
{
    return vminq_s32(vmaxq_s32(value, vdupq_n_s32(low)), vdupq_n_s32(high));
}

/* Whether requantize_4() may be used for all n of these shifts */
static inline int32_t plain_shifts(const int8_t *shift, int32_t n)
{
    while (n > 0 && *shift >= 0) {
        n--;
        shift++;
    }
    return n == 0;
}
//@ rows: mve requantize clamp
/* Weights by outputs, `stride` bytes from one to the next; plain where requantize_4() may be used */
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
        int32_t sum = 0;
        for (i = 0; i < s->taps; i += 16) {
            const mve_pred16_t rest = vctp8q((uint32_t)(s->taps - i));
            sum = vmladavaq_s8(sum, vldrbq_z_s8(x + i, rest), vldrbq_z_s8(s->weights + output * s->stride + i, rest));
        }
        sum = (int32_t)((uint32_t)sum + (uint32_t)s->bias[output]);
        y[output] = clamp(requantize(sum, s->multiplier[output], s->shift[output]) + s->out_zero, s->low, s->high);
    }
}

/* All outputs of the inputs x; the last four overlap those before where their number is no multiple of four. */
static void rows_times(const struct rows *s, const int8_t *x, int8_t *y)
{
    const int32x4_t low = vdupq_n_s32(s->low), high = vdupq_n_s32(s->high);
    int32_t output;
    if (s->outputs < 4 || !s->plain) {
        rows_times_one(s, x, y);
        return;
    }
    for (output = 0; output < s->outputs; output += 4) {
        const int8_t *w0, *w1, *w2, *w3, *from = x;
        int32_t a = 0, b = 0, c = 0, d = 0, blocks;
        int32x4_t value;
        output = output > s->outputs - 4 ? s->outputs - 4 : output;
        w0 = s->weights + output * s->stride;
        w1 = w0 + s->stride;
        w2 = w1 + s->stride;
        w3 = w2 + s->stride;
        for (blocks = s->taps >> 4; blocks > 0; blocks--) {
            const int8x16_t p = vldrbq_s8(from);
            a = vmladavaq_s8(a, p, vldrbq_s8(w0));
            b = vmladavaq_s8(b, p, vldrbq_s8(w1));
            c = vmladavaq_s8(c, p, vldrbq_s8(w2));
            d = vmladavaq_s8(d, p, vldrbq_s8(w3));
            from += 16;
            w0 += 16;
            w1 += 16;
            w2 += 16;
            w3 += 16;
        }
        if (s->taps & 15) {
            const mve_pred16_t rest = vctp8q((uint32_t)s->taps & 15);
            const int8x16_t p = vldrbq_z_s8(from, rest);
            a = vmladavaq_s8(a, p, vldrbq_z_s8(w0, rest));
            b = vmladavaq_s8(b, p, vldrbq_z_s8(w1, rest));
            c = vmladavaq_s8(c, p, vldrbq_z_s8(w2, rest));
            d = vmladavaq_s8(d, p, vldrbq_z_s8(w3, rest));
        }
        value = vsetq_lane_s32(a, vdupq_n_s32(d), 0);
        value = vsetq_lane_s32(b, value, 1);
        value = vsetq_lane_s32(c, value, 2);
        value = vaddq_s32(value, vldrwq_s32(s->bias + output));
        value = requantize_4(value, vldrwq_s32(s->multiplier + output), vldrbq_s32(s->shift + output));
        value = vminq_s32(vmaxq_s32(vaddq_n_s32(value, s->out_zero), low), high);
        vstrbq_s32(y + output, value);
    }
}
//@ conv_2d: conv_2d_settings rows
/* n bytes of x, or n times `fill` where x is null; returns where the next go */
static inline int8_t *conv_2d_copy(const int8_t *x, int8_t fill, int32_t n, int8_t *to)
{
    int8x16_t value = vdupq_n_s8(fill);
    int32_t i;
    for (i = 0; i < n; i += 16) {
        const mve_pred16_t rest = vctp8q((uint32_t)(n - i));
        if (x != 0)
            value = vldrbq_z_s8(x + i, rest);
        vstrbq_p_s8(to + i, value, rest);
    }
    return to + n;
}

/* The inputs under the kernel at (row, column), which may lie outside, as one column in the order of the weights. */
static void conv_2d_gather(const struct conv_2d *s, const int8_t *x, int32_t row, int32_t column, int8_t *to,
                           int32_t taps)
{
    const int32_t step = s->dilation_width;
    const int8_t zero = (int8_t)s->in_zero;
    const uint8x16_t order = vreinterpretq_u8_u32(vdupq_n_u32(0x03010200)) + (vidupq_n_u8(0, 1) & 0xfc);
    int8_t *const start = to;
    int32_t first = column < 0 ? (step - 1 - column) / step : 0;
    int32_t last = (s->in_width - column + step - 1) / step; /* the taps from first up to last lie inside */
    int32_t i, j;
    first = first < s->kernel_width ? first : s->kernel_width;
    last = last < s->kernel_width ? last : s->kernel_width;
    last = last > first ? last : first;
    for (i = 0; i < s->kernel_height; i++, row += s->dilation_height) {
        if (row < 0 || row >= s->in_height) {
            to = conv_2d_copy(0, zero, s->kernel_width * s->channels, to);
            continue;
        }
        to = conv_2d_copy(0, zero, first * s->channels, to);
        if (step == 1) {
            to = conv_2d_copy(x + (row * s->in_width + column + first) * s->channels, 0, (last - first) * s->channels,
                              to);
        } else {
            for (j = first; j < last; j++)
                to = conv_2d_copy(x + (row * s->in_width + column + j * step) * s->channels, 0, s->channels, to);
        }
        to = conv_2d_copy(0, zero, (s->kernel_width - last) * s->channels, to);
    }
    for (i = 0; i < taps; i += 16) {
        const mve_pred16_t rest = vctp8q((uint32_t)(taps - i));
        vstrbq_p_s8(start + i, vldrbq_gather_offset_z_s8(start + i, order, rest), rest);
    }
}

/* columns: room for two columns of taps as int16 */
static void conv_2d(const struct conv_2d *s, const int8_t *x, int8_t *y, int16_t *columns)
{
    const int32_t taps = (s->kernel_height * s->kernel_width * s->channels + 3) & ~(int32_t)3;
    const struct rows rows = {s->weights, s->bias, s->multiplier, s->shift, taps, taps, s->outputs,
                              s->out_zero, s->low, s->high, plain_shifts(s->shift, s->outputs)};
    int32_t row, column;
    for (row = 0; row < s->out_height; row++) {
        for (column = 0; column < s->out_width; column++, y += s->outputs) {
            conv_2d_gather(s, x, row * s->stride_height - s->pad_top, column * s->stride_width - s->pad_left,
                           (int8_t *)columns, taps);
            rows_times(&rows, (const int8_t *)columns, y);
        }
    }
}
//@ depthwise_conv_2d: depthwise_conv_2d_settings requantize clamp fill_16 mve
/* Four neighbours of a row of the plane, `stride` apart */
static inline int32x4_t depthwise_conv_2d_load(const int16_t *x, uint32x4_t offsets, int32_t stride, mve_pred16_t rest)
{
    return stride == 1 ? vldrhq_z_s32(x, rest) : vldrhq_gather_shifted_offset_z_s32(x, offsets, rest);
}

/* One channel of the output from its plane */
static void depthwise_conv_2d_plane(const struct depthwise_conv_2d *s, const int16_t *plane, int32_t output, int8_t *y)
{
    const int32_t m = s->multiplier[output], shift = s->shift[output], stride = s->stride_width;
    const int8_t *const weights = s->weights + output * s->kernel_height * s->kernel_width;
    const uint32x4_t lanes = vidupq_n_u32(0, 1);
    const uint32x4_t from = vmulq_n_u32(lanes, (uint32_t)stride), to = vmulq_n_u32(lanes, (uint32_t)s->outputs);
    int32_t row, column, i, j;
    y += output;
    for (row = 0; row < s->out_height; row++) {
        const int16_t *x = plane + row * s->stride_height * s->plane_width;
        for (column = 0; column < s->out_width; column += 4, x += 4 * stride) {
            const int32_t left = s->out_width - column;
            const mve_pred16_t rest = vctp32q((uint32_t)left);
            const int16_t *line = x;
            const int8_t *w = weights;
            int32x4_t sum = vdupq_n_s32(s->bias[output]);
            for (i = 0; i < s->kernel_height; i++, line += s->dilation_height * s->plane_width) {
                for (j = 0; j < s->kernel_width; j++)
                    sum = vmlaq_n_s32(sum, depthwise_conv_2d_load(line + j * s->dilation_width, from, stride, rest),
                                      *w++);
            }
            if (shift >= 0) {
                sum = vaddq_n_s32(requantize_4(sum, vdupq_n_s32(m), vdupq_n_s32(shift)), s->out_zero);
                vstrbq_scatter_offset_p_s32(y, to, clamp_4(sum, s->low, s->high), rest);
            } else {
                int32_t sums[4];
                vstrwq_s32(sums, sum);
                for (i = 0; i < 4 && i < left; i++)
                    y[i * s->outputs] = clamp(requantize(sums[i], m, shift) + s->out_zero, s->low, s->high);
            }
            y += (left < 4 ? left : 4) * s->outputs;
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
    const uint32x4_t apart = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)s->channels);
    int32_t channel, row, column, i;
    fill_16((int16_t)s->in_zero, s->plane_height * s->plane_width, plane);
    for (channel = 0; channel < s->channels; channel++) {
        for (row = 0; row < height; row++) {
            const int8_t *from = x + row * s->in_width * s->channels + channel;
            int16_t *to = plane + (row + s->pad_top) * s->plane_width + s->pad_left;
            for (column = 0; column < width; column += 4, from += 4 * s->channels) {
                const mve_pred16_t rest = vctp32q((uint32_t)(width - column));
                vstrhq_p_s32(to + column, vldrbq_gather_offset_z_s32(from, apart, rest), rest);
            }
        }
        for (i = 0; i < multiplier; i++)
            depthwise_conv_2d_plane(s, plane, channel * multiplier + i, y);
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
//@ max_pool_2d: pool mve
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
