# docker build -t segapp . && docker run --rm -p 127.0.0.1:8000:8000 segapp
# A service on the CPU, with the network that comes along, by ONNX Runtime: docs/serve.md#in-a-container.
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 VIRTUAL_ENV=/opt/segapp
RUN uv venv /opt/segapp
WORKDIR /src
COPY constraints.txt ./
# PyTorch's builds for CPUs, which what follows keeps: those of PyPI bring gigabytes of CUDA
RUN uv pip install --index-url https://download.pytorch.org/whl/cpu --constraints constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY segapp segapp
RUN uv pip install --constraints constraints.txt ".[serve,onnxruntime]"
RUN /opt/segapp/bin/segapp export checkpoint=embedded output=/opt/segapp/embedded.onnx

FROM python:3.12-slim
COPY --from=build /opt/segapp /opt/segapp
RUN useradd --create-home segapp
USER segapp
WORKDIR /home/segapp
ENV PATH=/opt/segapp/bin:$PATH
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
ENTRYPOINT ["segapp", "serve", "host=0.0.0.0"]
CMD ["checkpoint=/opt/segapp/embedded.onnx"]
