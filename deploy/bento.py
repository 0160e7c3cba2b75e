"""What `bentoml build -f deploy/bentofile.yaml` packs as a service: one detector, behind /predict and /classify"""
from multimodal_fakes.service.adapters import AdapterConf, bento_service

service = bento_service(AdapterConf(folder="models/fake_news", runtime="auto"))      # as in bentofile.yaml
