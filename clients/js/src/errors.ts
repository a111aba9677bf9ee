// Owns the error of a refused request.

/** A refusal by the hub, or by a proxy before it. */
export class FanfareError extends Error {
  override readonly name = 'FanfareError';

  constructor(
    /** The HTTP status; 0 without an answer. */
    readonly status: number,
    /** The hub's stable code; `http_<status>` if the answer is not the hub's. */
    readonly code: string,
    message: string,
    /** The wait requested by `Retry-After`. */
    readonly retryMs?: number,
    /** The refused topics, where the hub names them. */
    readonly topics?: readonly string[],
  ) {
    super(message);
  }

  /** The same request may succeed later. */
  get isTemporary(): boolean {
    return this.status === 0 || this.status >= 500 || [408, 425, 429].includes(this.status);
  }
}

export async function refusalOf(response: Response): Promise<FanfareError> {
  const body = await response.json().catch(() => ({}));
  const { code, message, topics } = body?.error ?? {};
  const retryMs = +response.headers.get('retry-after')! * 1000 || undefined;
  const { status } = response;
  return new FanfareError(status, code ?? `http_${status}`, message ?? `status ${status}`, retryMs, topics);
}
